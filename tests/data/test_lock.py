"""scripts/lock.py: the same stack file gives the same lock, byte by byte."""

from __future__ import annotations

import importlib.util
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TypeVar

import pytest
import yaml

from qwen_rig.catalog.stack import DATA, load_stack

T = TypeVar("T")


@pytest.fixture(scope="module")
def lock() -> ModuleType:
    path = Path(__file__).parents[2] / "scripts" / "lock.py"
    spec = importlib.util.spec_from_file_location("lock_script", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def reached(call: Callable[[], T]) -> T:
    """What the resolver says; skipped where it can reach no index, and only there."""
    try:
        return call()
    except Exception as error:
        if re.search("error sending request|dns error|failed to lookup|connect", str(error), re.IGNORECASE):
            pytest.skip(f"no package index from here: {error}")
        raise


@pytest.mark.parametrize("stack", ["standin", *(pytest.param(name, marks=pytest.mark.real)
                                                for name in ("guide", "qwen3", "nightly"))])
def test_locking_again_gives_the_lock_that_is_here(lock: ModuleType, tmp_path: Path, stack: str) -> None:
    wanted = yaml.safe_load((DATA / "stacks" / f"{stack}.yml").read_text())
    text, resolved = reached(lambda: lock.resolve(tmp_path, wanted))
    assert lock.header(wanted) + text == (DATA / "locks" / wanted["lock"]).read_text()
    assert lock.sizes(resolved, wanted) == (DATA / "locks" / wanted["sizes"]).read_text()


@pytest.fixture
def own(tmp_path: Path) -> Path:
    return Path(shutil.copy(DATA / "stacks" / "standin.yml", tmp_path / "own.yml"))


def test_a_stack_file_of_ones_own_is_locked_beside_it(lock: ModuleType, own: Path) -> None:
    own.write_text(own.read_text().replace("version: 8.1.8,", "version: 8.1.7,"))
    reached(lambda: lock.main(str(own)))
    stack = load_stack(str(own))
    assert stack.lock == own.with_name("standin.lock.txt") and stack.requirements("3.10")["click"].version == "8.1.7"
    assert load_stack("standin").requirements("3.10")["click"].version == "8.1.8", "ours is as it was"


def test_a_pin_that_does_not_exist_is_one_line_and_writes_nothing(lock: ModuleType, own: Path) -> None:
    own.write_text(own.read_text().replace("version: 8.1.8,", "version: 8.1.999,"))

    def locked() -> str:
        with pytest.raises(SystemExit) as caught:
            lock.main(str(own))
        if "8.1.999" not in str(caught.value):  # else it's the network's
            raise ConnectionError(str(caught.value))
        return str(caught.value)

    said = reached(locked)
    assert str(own) in said and "click==8.1.999" in said and "\n" not in said
    assert [path.name for path in own.parent.iterdir()] == ["own.yml"]


def test_an_unknown_stack_is_one_line(lock: ModuleType) -> None:
    with pytest.raises(SystemExit, match="there is no stack gide"):
        lock.main("gide")


def test_a_refused_stack_has_nothing_to_lock(lock: ModuleType) -> None:
    with pytest.raises(SystemExit, match="guide-literal is refused"):
        lock.main("guide-literal")
