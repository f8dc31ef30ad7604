"""One host's exception is that host's card and nobody else's end: the mechanism, and that all code goes by it."""

from __future__ import annotations

import ast
import io
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from paramiko import SSHException
from rich.console import Console

from qwen_rig.deploy import watched
from qwen_rig.deploy.planning import make_plan
from qwen_rig.errors import RigError
from qwen_rig.run import adapter, contain, stumble
from qwen_rig.run.limits import Flooded, Overdue
from qwen_rig.run.memory import ProbeFailed
from qwen_rig.run.run import Run

REPO = Path(__file__).parents[2]


class Odd(Exception):
    """What nobody expects."""

    def __str__(self) -> str:
        return "two\nlines"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setattr(stumble, "logs", lambda: tmp_path / "logs")
    made = Run(make_plan, watched)
    made.report.console = Console(file=io.StringIO(), width=100)
    return made


@pytest.mark.parametrize(("error", "says"), [
    (RigError("no card", "", "do this"), "no card"), (Flooded("too long"), "too long: its connection was closed"),
    (Overdue("late"), "late"), (ProbeFailed("not read"), "not read"), (SSHException("gone"), "connection lost: gone"),
    (EOFError(), "connection lost: EOFError"), (Odd(), "Odd: two lines"),
    (RecursionError("deep"), "RecursionError: deep"),
    (KeyError("x"), "KeyError"), (ValueError("9"), "ValueError: 9"), (MemoryError(), "MemoryError"),
], ids=lambda each: type(each).__name__ if isinstance(each, Exception) else "")
def test_whatever_is_raised_of_a_host_is_its_card_of_one_line(run: Run, error: Exception, says: str) -> None:
    def act() -> None:
        raise error

    assert run.report.contained("lab-1", act) is None and run.report.contained("lab-2", lambda: 7) == 7
    card = run.report.cards["lab-1"]
    assert says in card.what and "\n" not in card.what and card.remedy and card.status == 1
    assert list(run.report.cards) == ["lab-1"]
    if card.remedy == stumble.REMEDY:
        assert "test_contained.py:" in card.what, "the place"
        log = Path(card.log)
        assert "Traceback" in log.read_text() and log.stat().st_mode & 0o777 == 0o600


def test_no_signal_is_taken_for_a_host_s(run: Run) -> None:
    def act() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run.report.contained("lab-1", act)


def test_an_operation_whose_generator_or_function_raises_fails_its_host_alone(
        run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    state, host = SimpleNamespace(), SimpleNamespace(name="lab-1")
    host.state = state
    adapter.attach(state, run)  # type: ignore[arg-type]
    monkeypatch.setattr(adapter, "current_host", lambda: host)
    done: list[str] = []

    def good(state: Any, host: Any) -> bool:
        done.append("good")
        return True

    def bad(state: Any, host: Any) -> bool:
        raise Odd

    def commands() -> Iterator[Any]:
        yield adapter.FunctionCommand(good, (), {})
        yield adapter.FunctionCommand(bad, (), {})
        raise Odd

    made: Any = contain._contained(commands)
    assert next(made).execute(state, host, {}) is True and done == ["good"] and not run.report.cards
    assert next(made).execute(state, host, {}) is False and "Odd" in run.report.cards["lab-1"].what
    del run.report.cards["lab-1"]
    assert next(made).execute(state, host, {}) is False and "Odd" in run.report.cards["lab-1"].what
    assert list(made) == []


def trees() -> Iterator[tuple[Path, ast.Module]]:
    for folder in ("qwen_rig", "deploy", "facts"):
        for path in sorted((REPO / folder).rglob("*.py")):
            inside = path.relative_to(REPO)
            if inside.parts[:2] not in (("qwen_rig", "host"), ("qwen_rig", "deploy"), ("qwen_rig", "facts"),
                                        ("qwen_rig", "template")):
                yield inside, ast.parse(path.read_text(encoding="utf-8"))


def test_every_operation_and_every_entry_is_contained() -> None:
    """None is made by pyinfra's own decorator, and what a file of deploy/ calls is an `entry`."""
    for path, tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").endswith("run.adapter"):
                assert "operation" not in [each.name for each in node.names], f"{path}: from run.contain instead"
    entries = {node.names[0].name: node.module or "" for path in (REPO / "deploy").glob("*.py")
               for node in ast.parse(path.read_text()).body if isinstance(node, ast.ImportFrom)
               and (node.module or "").startswith("qwen_rig.deploy.") and not path.name.startswith("p")}
    assert len(entries) >= 4
    for name, module in entries.items():
        tree = ast.parse((REPO / f"{module.removeprefix('qwen_rig.').replace('.', '/')}.py").read_text())
        [made] = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name]
        assert "entry" in [getattr(each, "id", "") for each in made.decorator_list], f"{module}.{name}"


# Who reads JSON that no host wrote, each with what bounds it.
JSON_READERS = {
    "qwen_rig/strictjson.py", "qwen_rig/knobs.py",  # the user's own --data
    "qwen_rig/cli/_saved.py", "qwen_rig/catalog/model_config.py",
    "qwen_rig/cloud/inventory.py",  # the user's own file; a cloud's command line
    "qwen_rig/catalog/sources.py", "qwen_rig/network/collect.py", "qwen_rig/network/preflight.py",
    "qwen_rig/network/index.py", "qwen_rig/network/archive.py", "qwen_rig/bundle.py",  # an index, a bundle
    "qwen_rig/flash/cache.py",  # this machine's own cache
    "qwen_rig/finetune/data.py",  # the user's own data, a sample at a time
}


def test_json_of_a_host_is_read_in_one_way() -> None:
    found = {str(path) for path, tree in trees() for node in ast.walk(tree) if isinstance(node, ast.Attribute)
             and node.attr in ("load", "loads") and isinstance(node.value, ast.Name) and node.value.id == "json"}
    assert found <= JSON_READERS, found - JSON_READERS
