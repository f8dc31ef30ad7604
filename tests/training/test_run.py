"""A run on a host, as its programs there have it: killed, stopped, resumed, told. The trainer's libraries are a
STAND-IN (tests/training/standin); train_qwen.py and the programs beside it are the real ones."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from qwen_rig.finetune import told
from qwen_rig.finetune.fetched import listed
from qwen_rig.training import training_settings
from tests import HANG_S, until

HOST = Path(__file__).parents[2] / "qwen_rig" / "host"
STANDIN = Path(__file__).parent / "standin"
PROGRAMS = ("train_run.py", "train_follow.py", "train_files.py", "train_qwen.py")


class OnHost:
    """A run's folder and env, as host/train.sh leaves them."""

    def __init__(self, folder: Path, *options: str, oom_above: int = 16) -> None:
        self.folder, self.run = folder, folder / "runs" / "tiny"
        for each in ("env/bin", "env/.rig", "model", "runs/tiny/program"):
            (folder / each).mkdir(parents=True)
        (folder / "env" / "bin" / "python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
        (folder / "env" / "bin" / "python").chmod(0o755)
        (folder / "env" / ".rig" / "training.json").write_text(json.dumps(training_settings(24564, "8.9")))
        (folder / "model" / "config.json").write_text(json.dumps({"step_s": 0.02, "oom_above": oom_above}))
        (folder / "data.jsonl").write_text('{"text": "the quick brown fox"}\n' * 8)
        for name in PROGRAMS:
            (self.run / "program" / name).write_text((HOST / name).read_text())
        (self.run / "id").write_text("abc\n")
        asked = {"id": "abc", "name": "tiny", "env": str(folder / "env"), "busy": str(folder / "busy"), "options": [
            f"--model_name_or_path={folder / 'model'}", "--save_steps=5", *options,
            f"--dataset_name={folder / 'data.jsonl'}"]}
        (self.run / "program" / "run.json").write_text(json.dumps(asked))
        (folder / "busy").touch()

    def begin(self) -> subprocess.Popen[str]:
        return subprocess.Popen([sys.executable, str(self.run / "program" / "train_run.py"), str(self.run)], text=True,
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
                                env={**os.environ, "PYTHONPATH": str(STANDIN), "HOME": str(self.folder)})

    def end(self, process: subprocess.Popen[str]) -> tuple[int, str]:
        said, _ = process.communicate(timeout=HANG_S)
        return process.returncode, said

    def step(self) -> int:
        try:
            return json.loads((self.run / "progress.jsonl").read_text().splitlines()[-1])["step"]  # type: ignore[no-any-return]
        except (OSError, ValueError, IndexError):
            return 0

    def look(self) -> told.Told:
        (found,) = told.runs(self.asked("look", str(self.run.parent), "tiny"))
        return found

    def asked(self, *arguments: str) -> str:
        with open(HOST / "train_files.py", encoding="utf-8") as program:
            return subprocess.run([sys.executable, "-I", "-", *arguments], stdin=program, text=True, check=True,
                                  capture_output=True, env={**os.environ, "HOME": str(self.folder)}).stdout


def test_killed_torn_stopped_and_resumed_it_is_one_run_with_one_curve(tmp_path: Path) -> None:
    host = OnHost(tmp_path, "--max_steps=40")
    first = host.begin()
    until(lambda: host.step() >= 12)
    busy = json.loads((tmp_path / "busy").read_text())
    assert (busy["run"], busy["of"]) == ("tiny", 40) and 0 < busy["step"] <= host.step()
    os.killpg(first.pid, signal.SIGKILL)
    host.end(first)
    out = host.run / "out"
    torn = out / "checkpoint-999"  # the power went while it was written: no seal
    torn.mkdir()
    (torn / "adapter_model.safetensors").write_text("half")
    short = out / "checkpoint-10" / "optimizer.pt"  # sealed, but the disk has lost its end
    short.write_bytes(short.read_bytes()[:-1])
    second = host.begin()
    until(lambda: host.step() >= 20)
    (host.run / "stop").touch()
    code, said = host.end(second)
    assert code == 0 and "@train-from 5" in said.splitlines(), said
    assert not torn.exists()
    stopped = host.look()
    assert stopped.end["state"] == "stopped" and stopped.checkpoint == stopped.end["step"] == stopped.points[-1]["step"]
    assert {file.name for file in listed(stopped.files, "host")} == {
        "adapter_model.safetensors", "adapter_config.json", "trainer_state.json"}, "what holds pickles stays there"
    third = host.begin()
    until(lambda: host.step() > stopped.points[-1]["step"])
    os.killpg(third.pid, signal.SIGTERM)  # a shutdown, a spot machine's notice
    code, said = host.end(third)
    assert code == 0 and f"@train-from {stopped.checkpoint}" in said and host.look().end["state"] == "stopped", said
    code, said = host.end(host.begin())
    finished = host.look()
    assert code == 0 and finished.end["state"] == "finished" and finished.end["step"] == 40
    assert [row["step"] for row in finished.points] == list(range(1, 41))
    assert set(finished.files) == {"adapter_model.safetensors", "adapter_config.json"}
    assert len(list(out.glob("checkpoint-*"))) == 3, "older ones are pruned"
    assert finished.settings["max_steps"] == 40 and finished.revision == "0123456789abcdef"
    code, said = host.end(host.begin())
    assert code == 0 and "finished already, at step 40" in said and host.look() == finished


def test_memory_that_is_out_is_told_and_a_wrong_option_ends_before_the_imports(tmp_path: Path) -> None:
    host = OnHost(tmp_path / "a", "--max_steps=4", "--per_device_train_batch_size=8", oom_above=4)
    code, said = host.end(host.begin())
    assert code == 1 and "out of memory with batch 8" in said and host.look().end["state"] == "failed"
    host = OnHost(tmp_path / "b", "--max_length=0")
    code, said = host.end(host.begin())
    assert code == 1 and "--max_length can't be 0" in said and "torch" not in said


def test_a_part_of_a_file_and_none_through_a_link(tmp_path: Path) -> None:
    host = OnHost(tmp_path)
    (tmp_path / "file").write_bytes(bytes(range(256)) * 40)
    part = base64.b64decode(host.asked("part", str(tmp_path / "file"), "250", "10"))
    assert part == bytes([*range(250, 256), *range(4)])
    (tmp_path / "link").symlink_to(tmp_path / "file")
    assert host.asked("part", str(tmp_path / "link"), "0", "10") == ""


LIES: list[Any] = [
    {}, {"runs": 3}, {"runs": [None, 3, "x", [], {}]}, {"runs": [{"name": "../../etc"}]},
    {"runs": [{"name": "a", "points": [{"step": -1}, {"step": "1"}, {"step": 1e300}, {"step": True}, 7]}]},
    {"runs": [{"name": "a", "checkpoint": {"step": 5, "folder": "../../root", "files": 3}}]},
    {"runs": [{"name": "a", "job": {"state": "running", "run": "; rm -rf /"}, "end": [], "settings": 3}]},
]


@pytest.mark.parametrize("lie", LIES)
def test_what_a_host_tells_of_runs_is_a_strangers_word(lie: Any) -> None:
    for found in told.runs(json.dumps(lie)):
        assert found.name == "a" and found.points == () and found.job == "" and found.files == {}
        assert found.checkpoint is None and found.folder == ""
