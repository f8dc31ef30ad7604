"""The phrases of scripts/words.yml that stand in the project's sentences: part of `make check`."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import yaml

REPO = Path(__file__).parents[1]
TABLE = REPO / "scripts" / "words.yml"
KINDS = ("*.py", "*.md", "*.yml", "*.sh", "*.j2", "Makefile", "*.toml")
# Others' words (what programs print, what pages say), what was released, another language, and the table itself.
LEFT_OUT = ("CHANGELOG.md", "docs/zh-CN.md", "README.zh-CN.md", "docs/screens.md", "docs/troubleshooting.md",
            "scripts/words.yml", "tests/", "deploy/5090.py")
BREAK = r"""(?:[\s#]|["']\s*f?["'])+"""  # between two words: blanks, a comment's next line, a string's next part


@dataclass(frozen=True)
class Phrase:
    """A row of the table, its phrase as a pattern."""

    pattern: re.Pattern[str]
    why: str
    instead: str


def table() -> list[Phrase]:
    """The rows of scripts/words.yml."""
    return [Phrase(re.compile(rf"\b(?:{row['phrase'].replace(' ', BREAK)})\b", re.IGNORECASE), row["why"],
                   row["instead"]) for row in yaml.safe_load(TABLE.read_text(encoding="utf-8"))]


def found(text: str, phrases: list[Phrase]) -> list[tuple[int, str, Phrase]]:
    """(line, words, row) of each phrase in a text, in its order."""
    hits = [(text.count("\n", 0, hit.start()) + 1, " ".join(hit[0].split()), phrase)
            for phrase in phrases for hit in phrase.pattern.finditer(text)]
    return sorted(hits, key=lambda hit: hit[0])


def files() -> list[Path]:
    """The files whose sentences are looked at."""
    names = subprocess.run(["git", "ls-files", *KINDS], cwd=REPO, capture_output=True, text=True, check=True).stdout
    return [REPO / name for name in names.splitlines() if not name.startswith(LEFT_OUT)
            and not (REPO / name).is_symlink()]


def main() -> int:
    """0 where no phrase of the table stands in a file."""
    phrases, count = table(), 0
    for path in files():
        for line, words, phrase in found(path.read_text(encoding="utf-8"), phrases):
            count += 1
            print(f"{path.relative_to(REPO)}:{line}: {words!r}: {phrase.why} · say: {phrase.instead}")
    return 1 if count else 0


if __name__ == "__main__":
    sys.exit(main())
