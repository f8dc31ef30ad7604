"""Stack qwen3.5 as its lock has it, in a Python of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from qwen_rig.catalog.stack import Stack, load_stack


def interpreter(stack: Stack) -> str:
    """A Python on this machine that the stack takes, its default first; one that can't be run (a shim of pyenv's whose
    version isn't chosen) is passed over. Its minor where there is none: uv then fetches one."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    for minor in dict.fromkeys((stack.python, *stack.pythons)):
        name = f"python{minor}"
        for path in (*sorted(map(str, pyenv.glob(f"versions/{minor}.*/bin/{name}")), reverse=True),
                     shutil.which(name)):
            look = "import ensurepip, ssl, sqlite3, sys; print('%d.%d' % sys.version_info[:2])"
            if path and subprocess.run([path, "-c", look], capture_output=True, text=True).stdout.strip() == minor:
                return path
    return stack.python


@pytest.fixture(scope="session")
def python(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if named := os.environ.get("QWEN_RIG_QWEN35_PYTHON"):
        yield named
        return
    stack = load_stack("qwen3.5")
    venv, uv = tmp_path_factory.mktemp("qwen35"), str(Path(sys.executable).with_name("uv"))
    subprocess.run([uv, "venv", "-q", "--clear", "-p", interpreter(stack), str(venv)], check=True)
    subprocess.run([uv, "pip", "install", "-q", "--no-config", "-p", str(venv / "bin" / "python"), "--require-hashes",
                    "-r", str(stack.lock)], check=True)
    yield str(venv / "bin" / "python")
