"""Whether modules and functions are short enough to be read at once: `python -m scripts.sizes`, in `make check`."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

MODULE, FUNCTION = 400, 40  # lines at most; a test's function may be longer, as it tells a story


def main() -> int:
    """The exit status: 1 where something is too long; each in a line."""
    listed = subprocess.run(["git", "ls-files", "-z", "*.py"], stdout=subprocess.PIPE, check=True).stdout.decode()
    found = [line for name in filter(None, listed.split("\0")) if Path(name).is_file() for line in too_long(Path(name))]
    print("\n".join(found) or f"sizes: no module above {MODULE} lines, no function above {FUNCTION}")
    return 1 if found else 0


def too_long(path: Path) -> Iterator[str]:
    """A line for the module, and for each function in it, that is too long."""
    text = path.read_text(encoding="utf-8")
    if (lines := text.count("\n")) > MODULE:
        yield f"{path}: {lines} lines, {MODULE} at most: part it"
    if path.parts[0] == "tests":
        return
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) or node.end_lineno is None:
            continue
        if (lines := node.end_lineno - node.lineno + 1) > FUNCTION:
            yield f"{path}:{node.lineno}: {node.name} has {lines} lines, {FUNCTION} at most: part it"


if __name__ == "__main__":
    sys.exit(main())
