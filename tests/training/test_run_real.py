"""The programs of a run with the real libraries: a tiny random Qwen2 is trained, killed, resumed, stopped by a signal,
evaluated and merged. It takes a Python with the guide's stack (test_train_qwen.py builds one, or QWEN_RIG_TRAIN_PYTHON
names it)."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from qwen_rig.training import training_settings
from tests import HANG_S, until

from .test_run import HOST, PROGRAMS, OnHost
from .test_train_qwen import SAVE, python  # noqa: F401  a fixture

pytestmark = pytest.mark.real


# accelerate calls the CPU of a process cpu:0, cpu:1 (accelerate/state.py, set_device), and torch.load knows cpu alone.
# Cards, whose checkpoints are of cuda:0, meet nothing of this.
CPUS = """import torch
torch.serialization.register_package(5, lambda storage: None,
                                     lambda storage, place: storage if place.startswith("cpu:") else None)
"""


class RealOnHost(OnHost):
    """The same with the real libraries."""

    def __init__(self, folder: Path, python: str, *options: str) -> None:  # noqa: F811
        super().__init__(folder, *options)
        self.python = python
        (folder / "env/bin/python").write_text(f'#!/bin/sh\nexec {python} "$@"\n')
        subprocess.run([python, "-c", SAVE, str(HOST), str(folder / "model")], check=True, timeout=HANG_S)
        (folder / "env/.rig/training.json").write_text(json.dumps(training_settings(12282, "8.9")))
        (folder / "site").mkdir()
        (folder / "site" / "sitecustomize.py").write_text(CPUS)

    def environment(self) -> dict[str, str]:
        return {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(self.folder / "hf"), "HOME": str(self.folder),
                "PYTHONPATH": str(self.folder / "site"),
                "GLOO_SOCKET_IFNAME": "lo"}  # this machine's name may lead nowhere

    def begin(self) -> subprocess.Popen[str]:
        return subprocess.Popen([self.python, str(self.run / "program" / "train_run.py"), str(self.run)], text=True,
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
                                env=self.environment())

    def program(self, name: str, *arguments: str) -> None:
        for each in (name, *PROGRAMS):
            (self.folder / "env/.rig" / each).write_text((HOST / each).read_text())
        done = subprocess.run([self.python, str(self.folder / "env/.rig" / name), str(self.run), *arguments], text=True,
                              capture_output=True, timeout=HANG_S, env=self.environment())
        assert done.returncode == 0, done.stderr[-3000:]


def test_a_tiny_qwen_is_killed_resumed_stopped_evaluated_and_merged(tmp_path: Path, python: str) -> None:  # noqa: F811
    host = RealOnHost(tmp_path, python, "--max_steps=24", "--max_length=32", "--gradient_accumulation_steps=1",
                      "--save_steps=4")
    first = host.begin()
    until(lambda: host.step() >= 6 or first.poll() is not None)
    os.killpg(first.pid, signal.SIGKILL)
    host.end(first)
    second = host.begin()
    until(lambda: host.step() >= 10 or second.poll() is not None)
    os.killpg(second.pid, signal.SIGTERM)
    code, said = host.end(second)
    stopped = host.look()
    assert code == 0 and "@train-from 4" in said and stopped.end["state"] == "stopped", said[-3000:]
    assert stopped.checkpoint == stopped.end["step"]
    code, said = host.end(host.begin())
    found = host.look()
    assert code == 0 and found.end["state"] == "finished", said[-3000:]
    assert [row["step"] for row in found.points] == list(range(1, 25))
    assert found.points[-1]["loss"] < found.points[0]["loss"] and found.points[-1]["tokens_s"] > 0
    spec = {"step": 24, "prompts": [], "tokens": 8, "samples": 8, "training": str(tmp_path / "env/.rig/training.json")}
    host.program("train_eval.py", str(host.run / "out"), json.dumps(spec))
    made = host.look().evaluation
    assert made["loss"] < made["loss_base"] and len(made["answers"]) == 3
    host.program("train_merge.py", str(host.run / "out"), "24")
    assert {"model.safetensors", "config.json", "tokenizer.json"} <= set(host.look().merged["files"])


TWO = """compute_environment: LOCAL_MACHINE
distributed_type: MULTI_GPU
gpu_ids: all
machine_rank: 0
main_process_ip: 127.0.0.1
main_process_port: {port}
mixed_precision: 'no'
num_machines: 1
num_processes: 2
use_cpu: false
"""  # as accelerate_config writes it for two cards; without one, the trainer takes gloo on the CPU


def free_port() -> int:
    """One that nobody has. The static rendezvous tells trainers the port that it was given, so that 0, any port, has
    them ask at 0 for ever (torch/distributed/elastic/rendezvous/static_tcp_rendezvous.py)."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_two_processes_stop_at_one_step_with_a_checkpoint_and_go_on(
        tmp_path: Path, python: str, number: int) -> None:  # noqa: F811
    """The signal comes to the launcher and to both trainers at once, as from a shutdown; the launcher sends it again,
    and ends with a failure of its own."""
    host = RealOnHost(tmp_path, python, "--max_steps=24", "--max_length=32", "--save_steps=100",
                      "--gradient_accumulation_steps=2")
    (tmp_path / "env/.rig/accelerate.yaml").write_text(TWO.format(port=free_port()))
    asked = json.loads((host.run / "program" / "run.json").read_text())
    (host.run / "program" / "run.json").write_text(json.dumps({**asked, "launch": "accelerate"}))
    first = host.begin()
    until(lambda: host.step() >= 3 or first.poll() is not None)
    assert first.poll() is None, host.end(first)[1][-3000:]
    os.killpg(first.pid, number)
    code, said = host.end(first)
    stopped = host.look()
    assert code == 0 and "2 processes: effective batch" in said and stopped.end["state"] == "stopped", said[-3000:]
    assert stopped.checkpoint == stopped.end["step"] >= 3
    code, said = host.end(host.begin())
    found = host.look()
    assert code == 0 and f"@train-from {stopped.checkpoint}" in said, said[-3000:]
    assert found.end["state"] == "finished" and [row["step"] for row in found.points] == list(range(1, 25))
