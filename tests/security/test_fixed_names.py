"""Nothing that runs on a host has a fixed name in a folder where anybody may put things: whoever comes first has made
the file that root then writes. mktemp, and folders of our own."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]
FILES = sorted(path for folder in ("deploy", "facts", "qwen_rig") for kind in ("*.sh", "*.py")
               for path in (REPO / folder).rglob(kind))
OPEN = (r"(?:/tmp|/var/tmp|/dev/shm|/run/lock|/run/user/\w+|/var/lock"
        r"|\$\{(?:TMPDIR|TMP|TEMP)\b[^}]*\}|\$(?:TMPDIR|TMP|TEMP)\b)")
FIXED = re.compile(OPEN + r"""/(?!["'\s)]|$)[^\s"')]*""")
RANDOM = re.compile(r"X{6,}")
# Names that are only asked about: owned() looks at where they would lie, and nothing is made there.
ASKED = {("qwen_rig/shell/owned.sh", "${TMPDIR:-/tmp}/qwen-rig")}
# Programs that use mktemp or tempfile as they are: `temporary` has looked at TMPDIR before.
TEMPORARY = "temporary "


def texts(path: Path) -> Iterator[tuple[int, str]]:
    """A shell file's lines without comments; a Python file's string constants, docstrings left out."""
    source = path.read_text()
    if path.suffix == ".sh":
        yield from ((n, re.sub(r"(^|\s)#.*$", "", line)) for n, line in enumerate(source.split("\n"), 1))
        return
    tree = ast.parse(source)
    docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs:
            yield node.lineno, node.value
        if isinstance(node, ast.Attribute) and node.attr in ("mktemp", "gettempdir"):
            yield node.lineno, f"/tmp/{node.attr}"


def wrong(text: str) -> list[str]:
    """The fixed names in a text, and each mktemp without a folder that it is for."""
    return [found for found in FIXED.findall(text) if not RANDOM.search(found)]


@pytest.mark.parametrize(("text", "said"), [
    ("said=/tmp/.qwen-rig-apt.$$", ["/tmp/.qwen-rig-apt.$$"]),
    ('cat >"${TMPDIR:-/tmp}/x"', ["${TMPDIR:-/tmp}/x"]),
    ("cd /dev/shm/qwen-rig", ["/dev/shm/qwen-rig"]),
    ("exec 9>/run/lock/rig", ["/run/lock/rig"]),
    ("mktemp -d /tmp/rig.XXXXXX", []),
    ('df "${TMPDIR:-/tmp}" /tmp', []),
    ("cat /etc/tmpfiles.d/x", []),
])
def test_it_finds_what_it_is_for(text: str, said: list[str]) -> None:
    assert wrong(text) == said


def test_no_fixed_name_where_anybody_may_put_things() -> None:
    assert len(FILES) > 200
    found = [(str(path.relative_to(REPO)), name) for path in FILES for _, text in texts(path) for name in wrong(text)]
    assert [row for row in found if row not in ASKED] == []


def test_a_temporary_file_of_a_program_is_in_a_folder_that_was_looked_at() -> None:
    for path in FILES:
        if path.suffix != ".sh" or path.is_symlink():
            continue
        text = path.read_text()
        for line in text.split("\n"):
            if "mktemp" in line:
                assert RANDOM.search(line) or TEMPORARY in text, f"{path}: {line}"
