"""Stack qwen3.5 as its lock has it, in a Python of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from qwen_rig.catalog.stack import load_stack


@pytest.fixture(scope="session")
def python(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if named := os.environ.get("QWEN_RIG_QWEN35_PYTHON"):
        yield named
        return
    stack = load_stack("qwen3.5")
    venv, uv = tmp_path_factory.mktemp("qwen35"), str(Path(sys.executable).with_name("uv"))
    subprocess.run([uv, "venv", "-q", "--clear", "-p", stack.python, str(venv)], check=True)
    subprocess.run([uv, "pip", "install", "-q", "--no-config", "-p", str(venv / "bin" / "python"), "--require-hashes",
                    "-r", str(stack.lock)], check=True)
    yield str(venv / "bin" / "python")
