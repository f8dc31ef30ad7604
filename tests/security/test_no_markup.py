"""Lints that keep text of strangers from the terminal: no markup is parsed, and all that is printed passes one door."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

REPO = Path(__file__).parents[2]
ROOMS = ("qwen_rig", "deploy", "facts", "inventories", "testbed", "benchmarks", "scripts")
DOORS = ("qwen_rig/render.py", "qwen_rig/say.py")  # where printing is done
# Programs of their own: on hosts, in the testbed, in benchmarks. None prints what a host said.
OWN = ("qwen_rig/host/", "testbed/", "benchmarks/", "scripts/", "facts/launch.py")


def _files() -> list[Path]:
    return sorted(path for room in ROOMS for path in (REPO / room).rglob("*.py")
                  if not {"template", "deploy", "facts"} & set(path.relative_to(REPO).parts[1:2]))


def _name(call: ast.Call) -> str:
    function = call.func
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def _is_false(call: ast.Call, keyword: str) -> bool:
    return any(each.arg == keyword and isinstance(each.value, ast.Constant) and each.value.value is False
               for each in call.keywords)


def _faults(tree: ast.AST, where: str) -> Iterator[str]:
    for node in ast.walk(tree):
        line = f"{where}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.ImportFrom) and node.module == "rich.markup":
            yield f"{line} imports rich.markup"
        if isinstance(node, ast.ImportFrom) and node.module == "rich.console" and where not in DOORS \
                and not where.startswith(OWN) and "Console" in {each.name for each in node.names} \
                and any(isinstance(call, ast.Call) and _name(call) == "Console" for call in ast.walk(tree)):
            yield f"{line} makes a console that parses markup: render.console() doesn't"
        if not isinstance(node, ast.Call):
            continue
        name = _name(node)
        if name in ("from_markup", "render_markup", "Prompt", "Confirm"):
            yield f"{line} parses markup"
        if name == "TextColumn" and not _is_false(node, "markup"):
            yield f"{line} TextColumn parses markup unless markup=False"
        for keyword in node.keywords:
            made = isinstance(keyword.value, ast.Call) and _name(keyword.value) in ("Text", "assemble")
            if name == "Panel" and keyword.arg in ("title", "subtitle") \
                    and not made and not isinstance(keyword.value, ast.Constant):
                yield f"{line} Panel parses a title that is no Text"
            if keyword.arg in ("markup", "emoji") and not _is_false(node, keyword.arg):
                yield f"{line} {keyword.arg} is on"
        if where in DOORS or where.startswith(OWN):
            continue
        text = ast.unparse(node.func)
        if text in ("print", "sys.stdout.write", "sys.stderr.write") or text == "json.dump":
            yield f"{line} prints past qwen_rig/say.py and qwen_rig/render.py: {text}"


def test_nothing_parses_markup_and_all_prints_pass_one_door() -> None:
    faults = [fault for path in _files()
              for fault in _faults(ast.parse(path.read_text()), path.relative_to(REPO).as_posix())]
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize("bad", [
    "from rich.markup import escape", "Text.from_markup(x)", "TextColumn(f'[bold]{x}')", "Panel(a, title=f'{host}')",
    "Panel(a, subtitle=host)", "console.print(x, markup=True)", "print(f'{x}')", "sys.stderr.write(x)",
    "from rich.console import Console\nConsole()", "json.dump(x, sys.stdout)", "Console(emoji=on)"])
def test_the_lint_sees(bad: str) -> None:
    assert list(_faults(ast.parse(bad), "qwen_rig/cli/x.py"))
