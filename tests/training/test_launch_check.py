"""qwen_rig/host/launch_check.py as two hosts run it: two processes in two network namespaces with a cable between.

What hangs or dies is shown with ranks of the test's own; the real all-reduce (gloo, a torch on the CPU) is marked real:
QWEN_RIG_TRAIN_PYTHON names a Python that has torch.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests import HANG_S, until

HOST = Path(__file__).parents[2] / "qwen_rig" / "host"
NAMES = ("one", "two")


@pytest.fixture
def wires() -> Iterator[tuple[str, str]]:
    """Two network namespaces, 10.77.0.1 and 10.77.0.2 at the ends of one cable (eth0)."""
    if os.geteuid() != 0:
        pytest.skip("network namespaces take root")
    made = tuple(f"qr-{uuid.uuid4().hex[:8]}" for _ in NAMES)
    ip = ["ip", "-batch", "-"]
    lines = [f"netns add {made[0]}", f"netns add {made[1]}",
             f"link add eth0 netns {made[0]} type veth peer name eth0 netns {made[1]}"]
    try:
        subprocess.run(ip, input="\n".join(lines), text=True, check=True)
        for n, name in enumerate(made, 1):
            subprocess.run(["ip", "-n", name, "-batch", "-"], text=True, check=True, input=(
                f"address add 10.77.0.{n}/24 dev eth0\nlink set eth0 up\nlink set lo up\n"))
        yield made[0], made[1]
    finally:
        for name in made:
            subprocess.run(["ip", "netns", "delete", name], stderr=subprocess.DEVNULL)


def _both(wires: tuple[str, str], python: str, tmp_path: Path, limit: int = 100,
          nodes: tuple[int, ...] = (0, 1)) -> dict[int, Any]:
    """What the check records on each host."""
    running = []
    for node in nodes:
        spec = {"names": NAMES, "node": node, "per_node": 1, "master": "10.77.0.1", "port": 29500, "interface": "eth0",
                "backend": "gloo", "bytes": 1 << 20, "limit": limit, "fingerprint": "f"}
        running.append(subprocess.Popen(
            ["ip", "netns", "exec", wires[node], python, str(HOST / "launch_check.py"), "--spec", json.dumps(spec),
             "--record", str(tmp_path / f"{node}.json")], stdout=subprocess.DEVNULL))
    for process in running:
        assert process.wait(timeout=HANG_S) == 0
    return {node: json.loads((tmp_path / f"{node}.json").read_text()) for node in nodes}


@pytest.mark.real
def test_two_hosts_add_up_and_one_alone_is_a_finding_within_its_limit(wires: tuple[str, str], tmp_path: Path) -> None:
    python = os.environ.get("QWEN_RIG_TRAIN_PYTHON")
    if not python:
        pytest.skip("QWEN_RIG_TRAIN_PYTHON names no Python with torch")
    for found in _both(wires, python, tmp_path).values():
        assert found["status"] == "pass", found
        assert found["data"]["ranks"] == 2 and found["data"]["backend"] == "gloo" and found["data"]["bus_gbs"] > 0
    # Longer than the import of torch takes, and shorter than torch waits for the others.
    alone = _both(wires, python, tmp_path, limit=50, nodes=(1,))[1]
    assert alone["status"] == "fail" and alone["hang"] is True
    assert alone["why"] == "two, meeting at 10.77.0.1:29500 by eth0: hangs: no end after 50 s"


@pytest.mark.real
@pytest.mark.parametrize("script", ["launch.sh", "torchrun.sh"])
def test_the_written_files_train_one_model_over_two_hosts(script: str, wires: tuple[str, str], tmp_path: Path) -> None:
    """accelerate and torchrun for real, on CPUs (gloo): both hosts end at the same step, with the batch shared."""
    from qwen_rig import launch
    from qwen_rig.training import accelerate_config, training_settings

    from .test_train_qwen import SAVE

    python = os.environ.get("QWEN_RIG_TRAIN_PYTHON")
    if not python:
        pytest.skip("QWEN_RIG_TRAIN_PYTHON names no Python with the training stack")
    subprocess.run([python, "-c", SAVE, str(HOST), str(tmp_path / "model")], check=True, timeout=HANG_S)
    (tmp_path / "data.jsonl").write_text("\n".join(json.dumps({"text": f"the quick brown fox {n}"}) for n in range(64)))
    settings = training_settings(12282, "8.9")
    members = [launch.Member(name, f"10.77.0.{n}", str(tmp_path / name), (f"GPU-{name}",),
                             addresses=(("eth0", f"10.77.0.{n}", 24),)) for n, name in enumerate(NAMES, 1)]
    made, running = launch.together(members), []
    for name, wire in zip(NAMES, wires, strict=True):
        (tmp_path / name / "bin").mkdir(parents=True)
        (tmp_path / name / ".rig").mkdir()
        (tmp_path / name / "bin" / "python").write_text(f"#!/bin/sh\nexec {python} \"$@\"\n")
        (tmp_path / name / "bin" / "python").chmod(0o755)
        texts = {**launch.files(made, name, settings), "train_qwen.py": (HOST / "train_qwen.py").read_text(),
                 "training.json": json.dumps({**settings, "accelerate": accelerate_config(settings, 1)})}
        for title, text in texts.items():
            (tmp_path / name / ".rig" / title).write_text(text)
        running.append(subprocess.Popen(
            ["ip", "netns", "exec", wire, "sh", str(tmp_path / name / ".rig" / script), "--model",
             str(tmp_path / "model"), "--data", str(tmp_path / "data.jsonl"), "--output", str(tmp_path / f"out-{name}"),
             "--max-steps", "2", "--max-length", "32"], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / f"hf-{name}")}))
    said = [process.communicate(timeout=HANG_S) for process in running]
    assert [process.returncode for process in running] == [0, 0], [words[1][-1500:] for words in said]
    assert all("2 processes: effective batch 16 (wanted 16)" in out for out, _ in said), said
    assert "after step 2" in said[0][0], "host 0 saves"


@pytest.fixture
def check(monkeypatch: pytest.MonkeyPatch) -> Any:
    import importlib

    monkeypatch.syspath_prepend(str(HOST))
    return importlib.import_module("launch_check")


def _job(**more: Any) -> dict[str, Any]:
    return {"names": NAMES, "node": 1, "per_node": 2, "master": "10.77.0.1", "port": 29500, "interface": "eth0",
            "backend": "gloo", "bytes": 4, "limit": HANG_S, **more}


def test_what_hangs_is_killed_with_all_that_it_started(
        check: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit is over when both ranks hang, and not before."""
    over: list[float] = []

    class Timer(threading.Thread):
        def __init__(self, limit: float, act: Callable[[], object]) -> None:
            super().__init__(daemon=True)
            self.act = act

        def run(self) -> None:
            until(lambda: all((tmp_path / local).exists() and (tmp_path / local).read_text() for local in "01"))
            over.append(8)
            self.act()

        def cancel(self) -> None:
            """It has been over."""

    monkeypatch.setattr(check, "threading", SimpleNamespace(Timer=Timer))
    monkeypatch.setattr(check, "time", SimpleNamespace(monotonic=lambda: sum(over)))
    program = tmp_path / "rank.py"
    program.write_text("import json, subprocess, sys, time\nlocal = json.loads(sys.argv[2])['local']\n"
                       "print('rig-stage all-reduce', flush=True)\n"
                       "child = subprocess.Popen(['sleep', '3600'])\n"
                       f"open({str(tmp_path)!r} + f'/{{local}}', 'w').write(str(child.pid))\n"
                       "time.sleep(3600)\n")
    found = check.check(_job(limit=8), program=str(program))
    assert (found["status"], found["hang"]) == ("fail", True)
    assert found["why"] == "two, all-reduce: hangs: no end after 8 s"
    for local in "01":
        stat = Path(f"/proc/{(tmp_path / local).read_text()}/stat")
        assert not stat.exists() or stat.read_text().split()[2] == "Z", "a grandchild outlived the limit"


def test_a_rank_that_dies_or_fails_is_told_with_its_words(check: Any, tmp_path: Path) -> None:
    program = tmp_path / "rank.py"
    program.write_text("raise SystemExit('NCCL WARN Bootstrap : no socket interface found')\n")
    died = check.check(_job(), program=str(program))
    assert died["hang"] is False and died["why"] == (
        "two, its start: a rank died: NCCL WARN Bootstrap : no socket interface found")
    program.write_text("print('rig-stage all-reduce')\n"
                       "print('rig-result {\"status\": \"fail\", \"why\": \"wrong\"}')\n")
    assert check.check(_job(), program=str(program))["why"] == "two, all-reduce: wrong"


def test_without_torch_it_is_not_run(tmp_path: Path) -> None:
    """`-S`: no site-packages, so no torch, whatever this Python has."""
    done = subprocess.run([sys.executable, "-S", str(HOST / "launch_check.py"), "--spec",
                           json.dumps(_job(fingerprint="f"))], text=True, capture_output=True, timeout=HANG_S)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["status"], found["why"]) == ("not_run", "torch is not installed")
