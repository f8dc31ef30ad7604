"""scripts/lock.py: the same stack file gives the same lock, byte by byte."""

from __future__ import annotations

import importlib.util
import subprocess
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from rig.stack import DATA


@pytest.fixture(scope="module")
def lock() -> ModuleType:
    path = Path(__file__).parents[2] / "scripts" / "lock.py"
    spec = importlib.util.spec_from_file_location("lock_script", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_locking_again_gives_the_lock_that_is_here(lock: ModuleType, tmp_path: Path) -> None:
    wanted = yaml.safe_load((DATA / "stacks" / "standin.yml").read_text())
    try:
        text, resolved = lock.resolve(tmp_path, wanted)
    except subprocess.CalledProcessError:
        pytest.skip("no package index from here")
    assert lock.header(wanted) + text == (DATA / "locks" / "standin.lock.txt").read_text()
    assert lock.sizes(resolved, wanted) == (DATA / "locks" / "standin.sizes.yml").read_text()


def test_a_refused_stack_has_nothing_to_lock(lock: ModuleType) -> None:
    with pytest.raises(SystemExit, match="guide-literal is refused"):
        lock.main("guide-literal")
