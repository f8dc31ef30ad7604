"""One run over two hosts, as two processes of this machine: train_run.py and what travels with it are the real ones,
launcher and trainer the STAND-IN (standin/README.md). tests/e2e/test_launch.py has it over SSH."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from qwen_rig.host import train_files
from tests import until

from .test_run import OnHost

NAMES = ("one", "two")


class Pair:
    """Two run folders, as host/train.sh leaves those of one run over two hosts."""

    def __init__(self, folder: Path, *options: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
        self.hosts = [OnHost(folder / name, *options) for name in NAMES]
        for rank, host in enumerate(self.hosts):
            (host.run / "program" / "launch.yaml").write_text(
                f"machine_rank: {rank}\nnum_machines: 2\nmain_process_ip: 127.0.0.1\nmain_process_port: {port}\n")

    def begin(self, turn: str, from_: int = 0, silent_s: int = 60) -> list[subprocess.Popen[str]]:
        for host in self.hosts:
            file = host.run / "program" / "run.json"
            file.write_text(json.dumps({**json.loads(file.read_text()), "launch": "accelerate", "hosts": NAMES,
                                        "turn": turn, "from": from_, "silent_s": silent_s,
                                        "environment": {"NCCL_SOCKET_IFNAME": "lo"}}))
        return [host.begin() for host in self.hosts]


def test_two_hosts_stop_at_one_step_and_go_on_from_what_both_have(tmp_path: Path) -> None:
    pair = Pair(tmp_path, "--max_steps=30")
    first, second = pair.hosts
    running = pair.begin("a")
    until(lambda: first.step() >= 12 or any(each.poll() is not None for each in running))
    (second.run / "stop").touch()  # any of them
    for host, process in zip(pair.hosts, running, strict=True):
        code, said = host.end(process)
        assert code == 0 and "stand-in: 2 processes at 127.0.0.1" in said and "by lo" in said, said
    ends = [host.look().end for host in pair.hosts]
    assert ends[0]["state"] == ends[1]["state"] == "stopped" and ends[0]["step"] == ends[1]["step"] >= 12
    assert first.look().points and not second.look().points, "the first alone has the progress"
    assert [host.look().checkpoint for host in pair.hosts] == [ends[0]["step"]] * 2
    (first.run / "out" / f"checkpoint-{ends[0]['step']}" / train_files.SEAL).unlink()  # the power went here alone
    assert 10 in set(first.look().checkpoints) & set(second.look().checkpoints)
    for host, process in zip(pair.hosts, pair.begin("b", 10), strict=True):
        code, said = host.end(process)
        assert code == 0 and "@train-from 10" in said and host.look().end["state"] == "finished", said
    assert [row["step"] for row in first.look().points] == list(range(1, 31)), "one curve"
    assert "adapter_model.safetensors" in first.look().files


@pytest.mark.parametrize("gone", [0, 1])
def test_a_host_that_goes_silent_ends_the_other_which_names_it(tmp_path: Path, gone: int) -> None:
    pair = Pair(tmp_path, "--max_steps=100000")
    running = pair.begin("a", silent_s=3)
    until(lambda: pair.hosts[0].step() >= 2 or any(each.poll() is not None for each in running))
    os.killpg(running[gone].pid, signal.SIGSTOP)  # as a host without power: its connections stay open and say nothing
    try:
        code, said = pair.hosts[1 - gone].end(running[1 - gone])
        assert code == 1 and f"qwen-rig: {NAMES[gone]} fell away: no sign of life for 3 s" in said, said
        assert pair.hosts[1 - gone].look().end["state"] == "failed"
    finally:
        os.killpg(running[gone].pid, signal.SIGKILL)
        running[gone].wait()


def test_hosts_that_stood_still_themselves_hold_it_against_nobody(tmp_path: Path) -> None:
    pair = Pair(tmp_path, "--max_steps=60")
    running = pair.begin("a", silent_s=3)
    until(lambda: pair.hosts[0].step() >= 2 or any(each.poll() is not None for each in running))
    for number, rest in ((signal.SIGSTOP, 4), (signal.SIGCONT, 0)):
        for each in running:
            os.killpg(each.pid, number)
        time.sleep(rest)
    for host, each in zip(pair.hosts, running, strict=True):
        code, said = host.end(each)
        assert code == 0 and host.look().end["state"] == "finished", said


@pytest.mark.parametrize(("said", "patience"), [("step 4", 30), ("save 4", 1800), ("end 4", 30), (None, 30)])
def test_one_that_writes_a_checkpoint_is_given_longer(said: str | None, patience: int,
                                                      monkeypatch: pytest.MonkeyPatch) -> None:
    follow = _follow(monkeypatch)
    crew = follow.Crew(NAMES, 0, 30)

    class Store:
        def __init__(self, *_: object, **__: object) -> None:
            self.given: list[str] = []

        def set(self, key: str, value: str) -> None:
            self.given.append(value)
            crew.over = True

        def check(self, keys: list[str]) -> bool:
            return said is not None and keys == ["qwen-rig/1"]

        def get(self, key: str) -> bytes:
            return str(said).encode()

    follow.torch.distributed = SimpleNamespace(TCPStore=Store)
    monkeypatch.setattr(follow.time, "sleep", lambda seconds: None)
    crew.until = {1: time.monotonic() + 30}
    crew._tell()
    assert patience - 5 < crew.until[1] - time.monotonic() <= patience
    assert crew.store.given == ["step 1", "end 2"], "the last sign says that the training has ended"


def _follow(monkeypatch: pytest.MonkeyPatch) -> Any:
    """train_follow.py, without the libraries that the host has."""
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", "29500")
    for name, module in (("torch", SimpleNamespace()), ("train_files", train_files),
                         ("transformers", SimpleNamespace(TrainerCallback=object, __version__="5.0"))):
        monkeypatch.setitem(sys.modules, name, module)  # type: ignore[arg-type]
    spec = importlib.util.spec_from_file_location("train_follow_here", Path(str(train_files.__file__)).with_name(
        "train_follow.py"))
    assert spec is not None and spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def test_one_that_waits_for_a_host_that_did_not_begin_is_ended(tmp_path: Path) -> None:
    pair = Pair(tmp_path, "--max_steps=10")
    first, _ = pair.hosts
    (first.run / "end-before").write_text("an older beginning's")
    lone, other = pair.begin("a")
    os.killpg(other.pid, signal.SIGKILL)
    other.wait()
    train_files.end(str(first.run), "a", "two failed: no such file")
    code, said = first.end(lone)
    assert code and "qwen-rig: ended, as two failed: no such file" in said, said
    assert first.look().end["state"] == "failed" and not (first.run / "end-before").exists()


def test_the_version_of_a_model_and_of_data(tmp_path: Path, capsys: pytest.CaptureFixture[str],
                                            monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    (tmp_path / "training.json").write_text(json.dumps({"hf_home": str(tmp_path / "hf")}))
    place = tmp_path / "hf/hub/models--Qwen--Tiny"
    (place / "refs").mkdir(parents=True)
    (place / "refs/main").write_text("0123abc\n")
    snapshot = place / "snapshots/0123abc"
    snapshot.mkdir(parents=True)

    def same(model: str, data: str = "") -> dict[str, object]:
        train_files.same(str(tmp_path / "training.json"), model, data)
        return json.loads(capsys.readouterr().out)  # type: ignore[no-any-return]

    (snapshot / "config.json").write_text("{}")
    (snapshot / "model.safetensors").symlink_to("../../blobs/1")
    assert same("Qwen/Tiny")["model"] is None, "its weights were cut off"
    (place / "blobs").mkdir()
    (place / "blobs/1").write_text("weights")
    assert same("Qwen/Tiny") == {"model": "0123abc", "data": None, "own": {}}
    assert same("Qwen/Other")["model"] is None and same(str(tmp_path / "none"))["model"] is None
    before = same(str(snapshot), str(place / "blobs/1"))
    (place / "blobs/1").write_text("Weights")
    after = same(str(snapshot), str(place / "blobs/1"))
    assert before["model"] != after["model"] and before["data"] != after["data"]
    (tmp_path / ".config/qwen-rig").mkdir(parents=True)
    (tmp_path / ".config/qwen-rig/training.json").write_text('{"lora_r": 8}')
    assert same("Qwen/Tiny")["own"] == {"lora_r": 8}
