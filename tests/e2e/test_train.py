"""The day after, over real SSH: train, lose the controller, stop, resume, fetch, evaluate, remove. The trainer's
libraries on the host are a STAND-IN (tests/training/standin); train_qwen.py and all that is ours are the real ones,
and tests/training/test_run_real.py (real) trains a tiny Qwen by the same programs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests import HANG_S, until
from tests.finetune.schema import held

from .conftest import Lab, Run

pytestmark = pytest.mark.testbed


@pytest.fixture(scope="module")
def lab(bed: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    from testbed import HostSpec

    made = Lab(bed, bed.up([HostSpec("card-01", driver="580.95.05:open")]), tmp_path_factory.mktemp("train"),
               cuda_toolkit="never", flash_attn="off", verification="never")
    made.before = made.on("card-01", FILES)  # type: ignore[attr-defined]
    ready = made.deploy("-y")
    assert ready.code == 0, ready.stderr
    made.stand_in_trainer("card-01")
    yield made
    bed.down()


# Each file with its content, each link with its target: of our places, and of all where a program might leave one.
FILES = """find /root /home /etc /srv /opt /tmp /var/tmp /usr/local /var/lib/qwen-rig /run/qwen-rig -xdev \\
  ! -path '/opt/standin*' ! -path '/opt/model*' ! -path /etc/ld.so.cache \\
  \\( -type l -printf 'link %p %l\\n' -o -type f -exec sha256sum {} + \\) 2>/dev/null | sort"""
MODEL = ("--model_name_or_path", "/opt/model", "--dataset_name", "chats.jsonl", "--save_steps", "5")


def step(lab: Lab, name: str) -> int:
    last = lab.on("card-01", f"tail -n 1 /root/qwen-rig/runs/{name}/progress.jsonl 2>/dev/null || true")
    return json.loads(last)["step"] if last.startswith("{") else 0  # type: ignore[no-any-return]


def plain(done: Run) -> str:
    """What it said, without the frames of cards and their line breaks."""
    return " ".join(done.stderr.replace("│", " ").split())


def starts(lab: Lab, name: str) -> list[str]:
    return [line.split()[1] for line in lab.on("card-01", "cat /var/lib/qwen-rig/jobs/journal").splitlines()
            if line.split()[2] == f"train-{name}"]


def test_a_run_outlives_its_controller_a_cable_and_a_reboot_and_goes_on(lab: Lab) -> None:
    controller = lab.in_background("train", "card-01", "-i", str(lab.file), "--name", "first", "--max_steps", "200",
                                   *MODEL)
    until(lambda: step(lab, "first") >= 6 or controller.poll() is not None, lambda: str(controller.poll()))
    lab.on("card-01", "touch /opt/model/wait")  # however long the commands below take, it is at work
    controller.kill()  # no word, no signal's handler
    said = controller.communicate()[1]
    assert step(lab, "first") >= 6, said
    again = lab.rig("train", "card-01", "--name", "first", *MODEL)
    assert again.code == 1 and again.stderr.startswith("qwen-rig: a run first exists already"), again.stderr
    other = lab.rig("train", "card-01", "--name", "second", *MODEL)
    assert other.code == 1 and "the GPU is busy: user root, run first, step " in plain(other), other.stderr
    early = lab.rig("fetch", "first", "--json")
    assert early.code == 0 and held(json.loads(early.stdout), "fetch")["state"] == "running", early.stderr
    assert json.loads(early.stdout)["step"] in range(5, 200, 5)
    assert held(json.loads(lab.rig("runs", "logs", "first", "--json").stdout), "logs")["lines"]
    refused = lab.rig("remove", "card-01", "--yes")
    assert refused.code == 1 and "running on the host: train-first" in plain(refused), refused.stderr
    lab.on("card-01", "rm /opt/model/wait")
    stopped = lab.rig("runs", "stop", "first", "--json")
    assert stopped.code == 0, stopped.stderr
    at = held(json.loads(stopped.stdout), "run")
    assert at["state"] == "stopped" and 6 <= at["last"]["step"] < 200 and at["revision"] == "0123456789abcdef"
    assert f"checkpoint-{at['last']['step']}" in lab.on("card-01", "ls /root/qwen-rig/runs/first/out")
    before = cut_off(lab)
    lab.on("card-01", "rm /opt/model/wait; touch /opt/model/go")
    resumed = lab.rig("runs", "resume", "first", "--json")
    assert resumed.code == 0, resumed.stderr
    end = held(json.loads(resumed.stdout), "run")
    assert end["state"] == "finished" and end["last"]["step"] == end["result"]["step"] == 200 > before
    kept = json.loads((lab.folder / "state" / "qwen-rig" / "runs" / "first.json").read_text())
    assert [row["step"] for row in kept["points"]] == list(range(1, 201)), "the loss curve is one"
    assert starts(lab, "first") == ["start", "end", "start", "start", "end"], "the reboot's had no end of its own"
    assert kept["data"]["sha256"] in lab.on("card-01", "ls /root/qwen-rig/data")
    assert kept["env"]["lock_sha256"] and kept["seed"] == 42
    over = lab.rig("runs", "resume", "first")
    assert over.code == 1 and "has finished, step 200 of 200" in plain(over), over.stderr


def cut_off(lab: Lab) -> int:
    """A run that goes on: its cable is pulled while somebody looks on, then its host is rebooted. The step before."""
    from_ = step(lab, "first")
    onlooker = lab.in_background("runs", "resume", "first", "-i", str(lab.file))
    until(lambda: step(lab, "first") > from_ or onlooker.poll() is not None, lambda: str(onlooker.poll()))
    lab.bed.cable("card-01", up=False)
    trained = step(lab, "first")
    until(lambda: step(lab, "first") >= trained + 2, lambda: "it stands still without its cable")
    lab.on("card-01", "touch /opt/model/wait")
    lab.bed.cable("card-01", up=True)
    assert starts(lab, "first") == ["start", "end", "start"], "the cable's end began nothing"
    onlooker.kill()
    onlooker.communicate(timeout=HANG_S)
    lab.bed.reboot("card-01")
    looked = lab.rig("runs", "look", "--json")
    assert looked.code == 0, looked.stderr
    (found,) = held(json.loads(looked.stdout), "runs")
    assert found["state"] == "aborted" and trained <= found["last"]["step"] < 200, looked.stderr
    cut = lab.rig("runs", "attach", "first")
    assert cut.code == 0 and "next: qwen-rig runs resume first" in plain_out(cut), cut.stderr
    return int(found["last"]["step"])


def plain_out(done: Run) -> str:
    return " ".join((done.stdout + done.stderr).replace("│", " ").split())


def test_what_it_made_comes_here_byte_for_byte_and_is_evaluated(lab: Lab) -> None:
    done = lab.rig("fetch", "first", "--json")
    assert done.code == 0, done.stderr
    here = lab.folder / "first"
    there = lab.on("card-01", "cd /root/qwen-rig/runs/first/out && sha256sum *.safetensors *.json").splitlines()
    assert {line.split()[1]: line.split()[0] for line in there} == {
        name: hashlib.sha256((here / name).read_bytes()).hexdigest() for name in json.loads(done.stdout)["files"]}
    assert not [path for path in here.iterdir() if path.suffix not in (".json", ".safetensors")]
    held(json.loads(done.stdout), "fetch")
    told = lab.rig("eval", "first", "--prompt", "hello?", "--json")
    assert told.code == 0, told.stderr
    made = held(json.loads(told.stdout), "eval")
    assert made["loss"] < made["loss_base"] == 3 and made["answers"] == [
        {"prompt": "hello?", "base": "as before", "adapter": "as trained-200"}]


def test_memory_that_is_out_is_a_card_with_the_next_smaller_settings(lab: Lab) -> None:
    done = lab.rig("train", "card-01", "--name", "large", *MODEL, "--per_device_train_batch_size", "32",
                   "--gradient_accumulation_steps", "1")
    assert done.code == 1 and "the card ran out of memory with batch 32 of 1024 tokens" in plain(done), done.stderr
    less = "--per_device_train_batch_size=16 --gradient_accumulation_steps=2"
    assert f"qwen-rig runs resume large {less}" in plain(done), done.stderr
    again = lab.rig("runs", "resume", "large", *less.split())
    assert again.code == 0 and "✓ finished" in again.stdout, again.stderr


def differing(before: str, after: str) -> list[str]:
    return sorted(set(before.splitlines()) ^ set(after.splitlines()))


def test_remove_leaves_the_host_as_it_was(lab: Lab) -> None:
    before = lab.on("card-01", FILES)
    dry = lab.rig("remove", "card-01", "--dry", "--json")
    assert dry.code == 2 and "/root/miniforge3/envs/qwen-train" in dry.stdout, dry.stderr
    assert not held(json.loads(dry.stdout), "remove")[0]["removed"]
    assert differing(before, lab.on("card-01", FILES)) == []
    done = lab.rig("remove", "card-01", "--yes")
    assert done.code == 0 and "✓ removed" in done.stdout, done.stderr
    assert differing(lab.before, lab.on("card-01", FILES)) == []  # type: ignore[attr-defined]
    second = lab.rig("remove", "card-01", "--yes")
    assert second.code == 0 and "qwen-rig has nothing there" in second.stdout, second.stderr
