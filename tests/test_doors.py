"""pyinfra's own command line and ours, each in a process: a mistake is one line and status 1, and nobody is dialled."""

from __future__ import annotations

import os
import runpy
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from qwen_rig.run import adapter
from tests import HANG_S

ROOT = Path(__file__).parents[1]
LAB, DEPLOY = "inventories/lab.py", "deploy/5090.py"
PYINFRA = [  # (words behind `pyinfra -y`, what the line says); all others: test_options.py, in one process
    (["inventories/nosuch.py", DEPLOY], "no such inventory · 'inventories/nosuch.py'"),
    (["--chdir", "nosuch", LAB, DEPLOY], "no such folder, or it can't be entered: 'nosuch' · --chdir"),
    (["FOLDER/own.py", DEPLOY, "--data", "stack=nosuch"], "there is no stack 'nosuch' · --data"),
]


def one_line(words: list[str], says: str, folder: Path, cwd: Path = ROOT, **env: str) -> None:
    """Run it with an inventory of one host, whose port notices who comes."""
    (folder / "syntax.py").write_text("hosts = [\n")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        lab = folder / "lab.yml"
        port = listening.getsockname()[1]
        lab.write_text(f"hosts: {{lab-01: {{address: 127.0.0.1, port: {port}}}}}\n")
        (folder / "own.py").write_text(f"boxes = [('box', dict(ssh_hostname='127.0.0.1', ssh_port={port}))]\n")
        words, says = [word.replace("FOLDER", str(folder)) for word in words], says.replace("FOLDER", str(folder))
        env = {variable: text.replace("FOLDER", str(folder)) for variable, text in env.items()}
        done = subprocess.run([sys.executable, "-m", *words], cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True,
                              text=True, timeout=HANG_S, env={**os.environ, "LAB_HOSTS": str(lab), **env})
        with pytest.raises(BlockingIOError):
            listening.accept()
    own = [line for line in done.stderr.splitlines() if line.startswith("qwen-rig: ")]
    assert done.returncode == 1 and len(own) == 1 and says in own[0], done.stderr
    assert "Traceback" not in done.stdout + done.stderr, done.stderr


@pytest.mark.parametrize(("words", "says"), PYINFRA, ids=[case[1][:40] for case in PYINFRA])
def test_pyinfras_door(words: list[str], says: str, tmp_path: Path) -> None:
    one_line(["pyinfra", "-y", *words], says, tmp_path)


@pytest.mark.parametrize("inventory", ["FOLDER/own.py", "@local"])
def test_pyinfras_door_from_another_folder(inventory: str, tmp_path: Path) -> None:
    words = ["pyinfra", "-y", inventory, f"{ROOT}/{DEPLOY}", "--data", "stakc=x"]
    one_line(words, "pyinfra has read no config.py of a qwen-rig project", tmp_path, tmp_path)


@pytest.mark.parametrize("entry", ["5090", "certify", "launch", "undo", "verify"])
def test_an_entry_that_was_looked_at_by_nobody_does_nothing(entry: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A foreign inventory, from a folder that has no config.py of ours: pyinfra reads the deploy file alone."""
    monkeypatch.setattr(adapter, "current_host", lambda: SimpleNamespace(name="h", state=SimpleNamespace()))
    with pytest.raises(adapter.PyinfraError, match="has read no config"):
        runpy.run_path(str(ROOT / "deploy" / f"{entry}.py"))


@pytest.mark.parametrize(("words", "says", "env"), [
    (["plan", "-i", "FOLDER/syntax.py"], "it is no Python", {}),
    (["plan", "-i", "x" * 300], "the path is too long for a path", {}),
    (["plan"], "your home folder isn't there: FOLDER/nosuch · HOME", {"HOME": "FOLDER/nosuch", "XDG_STATE_HOME": ""}),
    (["plan"], "~nobody-x is no user's home · LAB_HOSTS", {"LAB_HOSTS": "~nobody-x/lab.yml"}),
], ids=["syntax", "long", "home", "nobody"])
def test_our_door(words: list[str], says: str, env: dict[str, str], tmp_path: Path) -> None:
    one_line(["qwen_rig", *words], says, tmp_path, ROOT, **env)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_what_nothing_takes_is_said() -> None:
    for words in (["--help"], ["certificate", "show", "--help"]):
        with open("/dev/full", "w") as full:
            done = subprocess.run([sys.executable, "-m", "qwen_rig", *words], cwd=ROOT, stdout=full,
                                  stderr=subprocess.PIPE, text=True, timeout=HANG_S)
        assert done.returncode == 1 and "can't be written: No space left on device" in done.stderr, done.stderr
