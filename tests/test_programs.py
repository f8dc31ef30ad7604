"""What a host's shell runs is constant text, out of .sh files or a plain constant: read from the syntax trees."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[1]
PROGRAM_AT = {"Program": 0, "script": 0, "ScriptCommand": 0, "run": 1, "job": 1, "Job": 2}  # which argument
FILES = [path for folder in ("deploy", "qwen_rig") for path in (REPO / folder).rglob("*.sh")]
SHELLS = {"sh", "/bin/sh", "bash", "/bin/bash"}
ONE_PLACE = {"qwen_rig/program.py": "load makes programs of files", "qwen_rig/run/converge.py": "the place that quotes",
             "qwen_rig/run/boundary.py": "sudo's wrapper, a file, around what pyinfra quoted",
             "qwen_rig/run/connector.py": "the frame, a file, around what pyinfra quoted"}


def name_of(call: ast.Call, aliases: dict[str, str]) -> str:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    return aliases.get(name, name)


def made_up(node: ast.expr) -> bool:
    """Whether a text is put together here: an f-string, +, %, format, join, or replace."""
    return (isinstance(node, (ast.JoinedStr, ast.BinOp))
            or (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
                and node.func.attr in ("format", "join", "replace")))


def constant(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def spliced(source: str) -> Iterator[tuple[int, str]]:
    """(line, what is wrong) for each text that could be a host's or a knob's in what a shell runs."""
    tree = ast.parse(source)
    aliases = {alias.asname: alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)
               and (node.module or "").endswith("program") for alias in node.names if alias.asname}
    from_program = {alias.asname or alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)
                    and (node.module or "").endswith("program") for alias in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name, at = name_of(node, aliases), PROGRAM_AT.get(name_of(node, aliases))
            named = [keyword.value for keyword in node.keywords if keyword.arg in ("call", "text", "program")]
            if at is not None and any(made_up(each) for each in [*node.args[at:at + 1], *named]):
                yield node.lineno, f"{name}() is given a text that is made up here"
            if name == "Program" and not all(map(constant, [*node.args, *named])):
                yield node.lineno, "Program() takes a plain constant"
            if (name == "load" and isinstance(node.func, ast.Name) and node.func.id in from_program
                    and not all(constant(each) or isinstance(each, (ast.Name, ast.Starred)) for each in node.args)):
                yield node.lineno, "load() takes the names of .sh files"
            if name in ("StringCommand", "QuoteString"):
                yield node.lineno, f"{name}() stands in qwen_rig/run/converge.py alone"
        words = getattr(node, "args" if isinstance(node, ast.Call) else "elts", [])
        for shell, option, text in zip(words, words[1:], words[2:], strict=False):
            if (constant(shell) and constant(option) and getattr(shell, "value", "") in SHELLS
                    and getattr(option, "value", "").startswith("-") and "c" in getattr(option, "value", "")
                    and not constant(text)):
                yield text.lineno, "a shell is given a text that is no plain constant"


@pytest.mark.parametrize("folder", ["deploy", "qwen_rig"])
def test_nothing_is_spliced_into_shell(folder: str) -> None:
    found = [f"{path.relative_to(REPO)}:{line}: {what}" for path in sorted((REPO / folder).rglob("*.py"))
             if path.relative_to(REPO).as_posix() not in ONE_PLACE for line, what in spliced(path.read_text())]
    assert found == []


@pytest.mark.parametrize("source", [
    'script(f"rm {path}", 60)', 'run(host, "rm " + path, 60)', 'job(step, "rm %s" % path, 60)',
    'Job("env", "Env", "rm {}".format(path), 60)', 'Program(f"rm {path}")', "Program(text)", 'Program("a" + text)',
    'Job("env", "Env", call="\\n".join(lines), seconds=60)', 'subprocess.run(["sh", "-c", f"rm {path}"])',
    'StringCommand("rm", path)', 'jobs.Job("env", "Env", f"rm {path}", 60)', 'f("bash", "-euc", text)',
    'from qwen_rig.program import load as shell\nshell(f"deploy/{name}.sh")',
])
def test_splicing_is_seen(source: str) -> None:
    assert list(spliced(source))


def test_every_file_is_a_part_of_a_program() -> None:
    named = {node.value for folder in ("deploy", "qwen_rig") for path in (REPO / folder).rglob("*.py")
             for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)
             and isinstance(node.value, str) and node.value.endswith(".sh")}
    assert sorted({path.relative_to(REPO).as_posix().removeprefix("qwen_rig/") for path in FILES} - named) == []
