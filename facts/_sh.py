"""How a probe is put together: small shell fragments in marked sections, and the sections found again in the output.

POSIX sh only (dash, bash, busybox); read-only; no root; always exits 0. Every section runs in its own subshell, so
that one that fails or leaves early costs no other. Pure: knows no pyinfra.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from qwen_rig.program import load

MARK = "##rig "
END = "end"
T = TypeVar("T")

# lim: whatever can hang runs under `timeout`, where there is one that knows -k (busybox since 1.30).
# clean: pyinfra decodes strictly, and one stray byte in somebody's file name would cost the whole run.
_PRELUDE = r"""
exec 2>/dev/null
LC_ALL=C; export LC_ALL
PATH="${PATH:-/usr/bin:/bin}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"; export PATH
unset CDPATH
if timeout -k 2 9 true; then lim() { timeout -k 2 20 "$@"; }; else lim() { "$@"; }; fi
have() { command -v "$1" >/dev/null; }
clean() { if have iconv; then iconv -c -f UTF-8 -t UTF-8; else tr -cd '\11\12\15\40-\176'; fi; }
read -r kernel </proc/sys/kernel/osrelease || kernel=$(uname -r)
"""


# unfit, owned: whose a path is.
_OWNED = load("shell/owned.sh").text


def script(sections: Mapping[str, str], setup: str = "") -> str:
    """One shell command that prints every section under its mark. `setup` runs first and may set variables."""
    body = "\n".join(
        f"printf '\\n{MARK}{name}\\n'\n(\n{fragment.strip()}\n)" for name, fragment in sections.items()
    )
    # Only the braces lose stdin: the shell may be reading this very script from it (ssh host sh -s <probe).
    return (f"{_PRELUDE.strip()}\n{_OWNED}\n{{\n{setup.strip()}\n{body}\nprintf '\\n{MARK}{END}\\n'\n}} "
            "</dev/null | clean\nexit 0")


def sections(output: Iterable[str]) -> dict[str, str]:
    """Section name → its text. A section that isn't there wasn't printed; END is there only if the probe came to it."""
    found: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in output:
        if line.startswith(MARK):
            lines = found.setdefault(line[len(MARK):].strip(), [])
        else:
            lines.append(line.rstrip("\r"))
    return {name: "\n".join(text).strip("\n") for name, text in found.items()}


def pairs(text: str) -> dict[str, str]:
    """`key=value` lines as a dict; of a key that comes twice, the first."""
    found: dict[str, str] = {}
    for line in text.split("\n"):  # a name may hold what else Python takes for a line's end
        key, equals, value = line.partition("=")
        if equals:
            found.setdefault(key.strip(), value.strip())
    return found


def attempt(parse: Callable[[], T]) -> tuple[T | None, str | None]:
    """What a parser says, and None; or None and one line, whatever made it fail: one odd cell costs no host."""
    try:
        return parse(), None
    except KeyError as error:
        return None, f"the probe's output lacks {error.args[0] if error.args else '?'}"
    except Exception as error:
        return None, " ".join(f"{type(error).__name__}: {error}".split())[:200]
