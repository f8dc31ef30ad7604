"""deploy/launch.py over real SSH: two hosts prepared for one training, and `qwen-rig train` over both, with a STAND-IN
of the trainer (tests/training/standin). Their stack is the stand-in, so that the all-reduce is `not run` here;
tests/training/test_launch_check.py and the last tests here (real) show both at work."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from qwen_rig.training import training_settings
from tests import HANG_S, until
from tests.finetune.schema import held
from tests.training.test_run import HOST
from tests.training.test_run_real import CPUS
from tests.training.test_train_qwen import SAVE

from .conftest import ENV, Lab, Run

pytestmark = pytest.mark.testbed


@pytest.fixture(scope="module")
def lab(bed: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Two hosts with the stand-in stack's env, and one without an env."""
    from testbed import HostSpec

    driver = "580.95.05:open"
    specs = [HostSpec("one-01", driver=driver), HostSpec("one-02", driver=driver), HostSpec("bare-01", driver=driver)]
    made = Lab(bed, bed.up(specs), tmp_path_factory.mktemp("launch"), cuda_toolkit="never", flash_attn="off",
               verification="never")
    ready = made.deploy("-y", "--exclude", "bare-01")
    assert ready.code == 0, ready.stderr
    made.data["defaults"]["verification"] = "auto"
    made.write()
    yield made
    bed.down()


def _files(lab: Lab, name: str) -> str:
    return lab.on(name, f"cd {ENV}/.rig && ls -l --time-style=full-iso && sha256sum launch.* torchrun.sh")


def test_two_hosts_get_their_files_once(lab: Lab) -> None:
    pair = ("--limit", "one-01", "--limit", "one-02")
    dry = lab.pyinfra("--dry", "deploy/launch.py", *pair)
    assert dry.code == 0 and "Traceback" not in dry.stderr, dry.stderr
    assert " ".join(dry.stderr.split()).count("2 trust domains (one-01 alone, one-02 alone)") == 1, dry.stderr
    assert "launch.sh" not in lab.on("one-01", f"ls {ENV}/.rig")
    first = lab.pyinfra("-y", "deploy/launch.py", *pair)
    assert first.code == 0, first.stderr
    assert "all-reduce not run: torch is not installed" in first.stderr  # said, and never a pass
    assert "✓ ready" in first.stderr and "wrote launch.yaml" in first.stderr, first.stderr
    master = lab.hosts["one-01"].address
    for rank, name in enumerate(("one-01", "one-02")):
        config = yaml.safe_load(lab.on(name, f"cat {ENV}/.rig/launch.yaml"))
        assert (config["machine_rank"], config["num_machines"], config["num_processes"]) == (rank, 2, 2)
        assert (config["main_process_ip"], config["main_process_port"]) == (master, 29500)
        assert lab.on(name, f". {ENV}/.rig/launch.env; echo $NCCL_SOCKET_IFNAME $GLOO_SOCKET_IFNAME") == "eth0 eth0\n"
        assert f"--node-rank {rank}" in lab.on(name, f"cat {ENV}/.rig/torchrun.sh")
        lab.on(name, f"sh -n {ENV}/.rig/launch.sh && sh -n {ENV}/.rig/torchrun.sh")
    before = [_files(lab, name) for name in ("one-01", "one-02")]
    second = lab.pyinfra("-y", "deploy/launch.py", *pair)
    assert second.code == 0 and second.results["Grand total"]["success"] == 0, second.stderr
    assert "✓ no change" in second.stderr and before == [_files(lab, name) for name in ("one-01", "one-02")]
    lab.on("one-02", f"rm {ENV}/.rig/launch.yaml")
    mended = lab.pyinfra("-y", "deploy/launch.py", *pair)
    assert mended.code == 0 and mended.results["Grand total"]["success"] == 1, mended.stderr


@pytest.mark.parametrize(("limit", "said"), [
    (("one-01",), "a launch takes two hosts or more, and this is one-01"),
    (("one-01", "bare-01"), "no env on bare-01 · run deploy/5090.py on it first"),
])
def test_hosts_that_cannot_train_together_are_left_untouched_and_told_in_one_line(
        lab: Lab, limit: tuple[str, ...], said: str) -> None:
    before = _files(lab, "one-01")
    done = lab.rig("launch", *limit)
    words = " ".join(done.stderr.replace("│", " ").split())
    assert done.code == 1 and "Traceback" not in done.stderr
    assert all(part in words for part in said.split(" · ")), done.stderr
    assert _files(lab, "one-01") == before
    assert "launch.sh" not in lab.on(limit[-1], f"ls {ENV}/.rig 2>/dev/null || true") or limit[-1] == "one-01"


def test_no_launch_without_a_host_that_is_down(lab: Lab) -> None:
    lab.bed.cable("one-02", up=False)
    try:
        done = lab.rig("launch", "one-01", "one-02")
    finally:
        lab.bed.cable("one-02", up=True)
    assert done.code == 1 and "no launch without one-02" in " ".join(done.stderr.split()), done.stderr


def test_an_address_that_is_not_the_hosts_own(lab: Lab, tmp_path: Path) -> None:
    done = lab.rig("launch", "one-01", "one-02", "--data", "launch_address=192.0.2.7")
    words = " ".join(done.stderr.replace("│", " ").split())
    assert done.code == 1 and "192.0.2.7 is no address of one-01's own, which are: " in words, done.stderr


PAIR = ("one-01", "one-02")
RUNS = "/root/qwen-rig/runs"
TRAIN = ("--model_name_or_path", "/opt/model", "--dataset_name", "chats.jsonl", "--save_steps", "5",
         "--max_steps", "80", "--data", "timeout_launch=10", "--data", "timeout_reconnect=20")


def _step(lab: Lab) -> int:
    last = lab.on("one-01", f"tail -n 1 {RUNS}/crew/progress.jsonl 2>/dev/null || true")
    return int(json.loads(last)["step"]) if last.startswith("{") else 0


def _said(done: Run) -> str:
    return " ".join((done.stdout + done.stderr).replace("│", " ").split())


def _ended(lab: Lab, name: str, run: str) -> str:
    """How a host's part of a run ended, once it has."""
    found = until(lambda: lab.on(name, f"cat {RUNS}/{run}/end.json 2>/dev/null || true"))
    return str(json.loads(found)["state"])


def _checkpoints(lab: Lab) -> list[str]:
    return [lab.on(name, f"cd {RUNS}/crew/out && ls -d checkpoint-*") for name in PAIR]


def test_one_training_over_two_hosts_outlives_its_controller_stops_on_both_and_goes_on_after_one_fell_away(
        lab: Lab) -> None:
    for name in PAIR:
        lab.stand_in_trainer(name)
    lab.on("one-02", "echo >>/opt/model/config.json")
    other = lab.rig("train", *PAIR, "--name", "crew", *TRAIN)
    assert other.code == 1 and "the model /opt/model is not the same on all: one-01" in _said(other), other.stderr
    assert [lab.on(name, f"ls {RUNS} 2>/dev/null || true") for name in PAIR] == ["", ""], "nothing was begun"
    lab.stand_in_trainer("one-02")
    controller = lab.in_background("train", *PAIR, "-i", str(lab.file), "--name", "crew", *TRAIN)
    until(lambda: _step(lab) >= 6 or controller.poll() is not None)
    controller.kill()
    said = controller.communicate()[1]
    assert _step(lab) >= 6, said
    stopped = lab.rig("runs", "stop", "crew", "--json")
    at = held(json.loads(stopped.stdout), "run")
    assert stopped.code == 0 and (at["state"], at["host"], at["hosts"]) == ("stopped", "one-01", list(PAIR))
    there = _checkpoints(lab)
    assert f"checkpoint-{at['last']['step']}\n" in there[0] and there[0] == there[1], "each has its own"
    assert len({lab.on(name, "ls /root/qwen-rig/data") for name in PAIR}) == 1
    onlooker = lab.in_background("runs", "resume", "crew")
    until(lambda: _step(lab) > at["last"]["step"] or onlooker.poll() is not None)
    lab.bed.cable("one-02", up=False)
    try:
        out, err = onlooker.communicate(timeout=HANG_S)
    finally:
        lab.bed.cable("one-02", up=True)
    fell = _said(Run(onlooker.returncode, out, err))
    assert onlooker.returncode and "crew ended on all hosts, as one-02 fell away" in fell, err
    assert "then qwen-rig runs resume crew" in fell and "Traceback" not in fell, err
    assert [_ended(lab, name, "crew") for name in PAIR] == ["failed", "failed"]
    for name in PAIR:
        lab.on(name, "touch /opt/model/go")
    resumed = lab.rig("runs", "resume", "crew", "--json")
    assert resumed.code == 0 and json.loads(resumed.stdout)["state"] == "finished", resumed.stderr
    kept = json.loads((lab.folder / "state" / "qwen-rig" / "runs" / "crew.json").read_text())
    assert [row["step"] for row in kept["points"]] == list(range(1, 81)), "the loss curve is one"
    assert lab.rig("fetch", "crew").code == 0 and (lab.folder / "crew" / "adapter_model.safetensors").is_file()


def test_where_one_host_cannot_begin_the_other_is_ended(lab: Lab) -> None:
    for name in PAIR:
        lab.stand_in_trainer(name)
    lab.on("one-02", f"mkdir -p {RUNS}/half && echo another >{RUNS}/half/id")
    done = lab.rig("train", *PAIR, "--name", "half", *TRAIN)
    assert done.code == 1 and "half ended on all hosts, as one-02 failed: a run of that name is on this host" \
        in _said(done), done.stderr
    assert _ended(lab, "one-01", "half") == "failed"
    assert lab.on("one-01", "pgrep -f 'train_run[.]py' || true") == ""


def _give_torch(lab: Lab, name: str, python: str) -> None:
    """A plain venv in the env's place, with the site-packages of a Python of this machine that has a torch for CPUs.

    It is of the host's own Python: that torch is published for the Python that this machine has, not for the env's.
    """
    from testbed import host

    ask = "import sys, sysconfig; print(sysconfig.get_path('purelib'), '%d.%d' % sys.version_info[:2])"
    site, minor = subprocess.run([python, "-c", ask], check=True, text=True, capture_output=True).stdout.split()
    lab.on(name, "(apt-get -q update && apt-get -qy install --no-install-recommends python3-venv) 2>&1")
    if f"Python {minor}." not in (has := lab.on(name, "python3 --version")):
        pytest.skip(f"{python} is Python {minor}, the hosts have {has.strip()}")
    unpack = host.enter(lab.bed._host_folder(name), ["sh", "-c", "mkdir -p /opt/site && tar -x -C /opt/site"])
    with subprocess.Popen(["tar", "-C", site, "-c", "."], stdout=subprocess.PIPE) as packed:
        subprocess.run(unpack, stdin=packed.stdout, check=True)
    lab.on(name, f"rm {ENV}; python3 -m venv --without-pip {ENV}; mkdir {ENV}/.rig; "
                 f"echo /opt/site >{ENV}/lib/python{minor}/site-packages/of-the-test.pth")


@pytest.mark.real
def test_a_real_all_reduce_over_two_hosts_and_one_that_cannot_meet(lab: Lab) -> None:
    """gloo on the CPUs: it shows the way from `rig launch` to the sum and back, and not NCCL."""
    if not (python := os.environ.get("QWEN_RIG_TRAIN_PYTHON")):
        pytest.skip("QWEN_RIG_TRAIN_PYTHON names no Python with torch")
    pair = ("one-01", "one-02")
    for name in pair:
        _give_torch(lab, name, python)
    first = lab.rig("launch", *pair)
    words = " ".join((first.stdout + first.stderr).split())
    assert first.code == 0, first.stderr
    assert "all-reduce of 2 ranks over gloo (torch " in words and "the network, not the cards" in words, first.stderr
    again = lab.rig("launch", *pair)
    assert again.code == 0 and "all-reduce of" not in again.stdout + again.stderr, again.stderr
    # Somebody else sits on the port: the first host can't listen, and the second speaks to who never answers.
    listen = f"import socket, time; s = socket.create_server(('', 29500)); print(1, flush=True); time.sleep({HANG_S})"
    taken = subprocess.Popen([*lab.bed.ssh_argv("one-01"), f'timeout {HANG_S} python3 -c "{listen}"'],
                             stdout=subprocess.PIPE, text=True)
    try:
        assert taken.stdout is not None and taken.stdout.readline() == "1\n"
        # Longer than the import of torch takes: the finding is about the meeting.
        stuck = lab.rig("launch", *pair, "--data", "verification=always", "--data", "timeout_launch=90")
    finally:
        taken.terminate()
    words = " ".join(stuck.stderr.replace("│", " ").split())
    assert stuck.code == 4 and "Traceback" not in stuck.stderr, stuck.stderr
    assert "all-reduce failed: one-01, meeting at" in words and "29500" in words, stuck.stderr
    assert "one-02, meeting at" in words, stuck.stderr


def _give_trainer(lab: Lab, name: str, python: str, folder: Path) -> None:
    """The real trainer's packages, settings for a small card, and a tiny random Qwen that takes chats."""
    from testbed import host

    if not (tiny := folder / "tiny").exists():
        subprocess.run([python, "-c", SAVE, str(HOST), str(tiny)], check=True, timeout=HANG_S)
        config = json.loads((tiny / "tokenizer_config.json").read_text())
        template = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}{{ eos_token }}{% endfor %}"
        (tiny / "tokenizer_config.json").write_text(json.dumps({**config, "chat_template": template}))
    if not lab.on(name, "ls /opt/site 2>/dev/null || true"):
        _give_torch(lab, name, python)
    lab.on(name, f"""printf '/opt/site\nimport cpus\n' >"$(echo {ENV}/lib/python3*/site-packages)/of-the-test.pth"
cat >/opt/site/cpus.py <<'END'
{CPUS}
END
cat >{ENV}/.rig/training.json <<'END'
{json.dumps(training_settings(12282, "8.9"))}
END""")
    unpack = host.enter(lab.bed._host_folder(name), ["sh", "-c", "mkdir -p /opt/tiny && tar -x -C /opt/tiny"])
    with subprocess.Popen(["tar", "-C", str(tiny), "-c", "."], stdout=subprocess.PIPE) as packed:
        subprocess.run(unpack, stdin=packed.stdout, check=True)


@pytest.mark.real
def test_a_real_training_of_chats_outlives_controller_cable_and_reboot(lab: Lab, tmp_path: Path) -> None:
    """The real TRL and torch on a CPU: it goes on without its controller and its cable, and after a reboot resumes."""
    if not (python := os.environ.get("QWEN_RIG_TRAIN_PYTHON")):
        pytest.skip("QWEN_RIG_TRAIN_PYTHON names no Python with the guide's stack")
    host, journal = "one-01", "grep -c ' start train-chats ' /var/lib/qwen-rig/jobs/journal || true"
    _give_trainer(lab, host, python, tmp_path)
    chat = {"messages": [{"role": "user", "content": "the quick brown fox"},
                         {"role": "assistant", "content": "jumps over the lazy dog"}]}
    (lab.folder / "said.jsonl").write_text(f"{json.dumps(chat)}\n" * 64)

    def at() -> int:
        last = lab.on(host, f"tail -n 1 {RUNS}/chats/progress.jsonl 2>/dev/null || true")
        return int(json.loads(last)["step"]) if last.startswith("{") else 0

    def further(process: subprocess.Popen[str], steps: int) -> int:
        until(lambda: at() >= steps or process.poll() is not None, lambda: str(process.poll()))
        return at()

    controller = lab.in_background("train", host, "-i", str(lab.file), "--name", "chats", "--max_steps", "2000",
                                   "--save_steps", "5", "--model_name_or_path", "/opt/tiny", "--dataset_name",
                                   "said.jsonl", "--max_length", "64", "--per_device_train_batch_size", "1")
    assert further(controller, 6) >= 6, controller.communicate(timeout=HANG_S)[1]
    controller.kill()
    controller.communicate(timeout=HANG_S)
    onlooker = lab.in_background("runs", "attach", "chats", "-i", str(lab.file))
    seen = further(onlooker, at() + 2)
    lab.bed.cable(host, up=False)
    until(lambda: at() >= seen + 3, lambda: "it stands still without its cable")
    lab.bed.cable(host, up=True)
    onlooker.kill()
    onlooker.communicate(timeout=HANG_S)
    assert lab.on(host, journal) == "1\n", "it never ran twice"
    lab.bed.reboot(host)
    (found,) = held(json.loads(lab.rig("runs", "look", "--json").stdout), "runs")
    assert found["state"] == "aborted" and found["last"]["step"] >= seen, found
    end = found["last"]["step"] + 5
    resumed = lab.rig("runs", "resume", "chats", "--max_steps", str(end), "--json")
    assert resumed.code == 0 and json.loads(resumed.stdout)["state"] == "finished", resumed.stderr
    kept = json.loads((lab.folder / "state" / "qwen-rig" / "runs" / "chats.json").read_text())
    assert [row["step"] for row in kept["points"]] == list(range(1, end + 1)), "the loss curve is one"
    assert kept["points"][-1]["loss"] < kept["points"][0]["loss"] and lab.on(host, journal) == "2\n"
    fetched = lab.rig("fetch", "chats", "--json")
    assert fetched.code == 0, fetched.stderr
    there = lab.on(host, f"cd {RUNS}/chats/out && sha256sum *.safetensors").split()
    here = hashlib.sha256((lab.folder / "chats" / there[1]).read_bytes()).hexdigest()
    assert there[0] == here


@pytest.mark.real
def test_a_real_training_over_two_hosts_stops_on_both_and_goes_on(lab: Lab, tmp_path: Path) -> None:
    """The real TRL, accelerate and torch, by gloo on the CPUs: a tiny random Qwen."""
    if not (python := os.environ.get("QWEN_RIG_TRAIN_PYTHON")):
        pytest.skip("QWEN_RIG_TRAIN_PYTHON names no Python with the guide's stack")
    (lab.folder / "texts.jsonl").write_text('{"text": "the quick brown fox jumps over the lazy dog"}\n' * 64)
    for name in PAIR:
        _give_trainer(lab, name, python, tmp_path)
    train = ("--name", "crew", "--model_name_or_path", "/opt/tiny", "--dataset_name", "texts.jsonl",
             "--max_length", "32", "--max_steps", "200", "--data", "timeout_launch=60")
    (lab.folder / "state" / "qwen-rig" / "runs" / "crew.json").unlink(missing_ok=True)
    lab.on("one-01", f"rm -rf {RUNS}")
    lab.on("one-02", f"rm -rf {RUNS}")
    controller = lab.in_background("train", *PAIR, "-i", str(lab.file), *train)
    until(lambda: _step(lab) >= 3 or controller.poll() is not None)
    stopped = lab.rig("runs", "stop", "crew", "--json")
    out, err = controller.communicate(timeout=HANG_S)
    at = held(json.loads(stopped.stdout), "run")
    assert stopped.code == controller.returncode == 0 and at["state"] == "stopped", stopped.stderr + out + err
    there = _checkpoints(lab)
    assert f"checkpoint-{at['last']['step']}\n" in there[0] and there[0] == there[1]
    assert "2 processes: effective batch 16 (wanted 16)" in lab.rig("runs", "logs", "crew").stdout
    resumed = lab.rig("runs", "resume", "crew", "--max_steps", str(at["last"]["step"] + 5), "--json")
    end = held(json.loads(resumed.stdout), "run")
    assert resumed.code == 0 and end["state"] == "finished", resumed.stderr
    assert end["last"]["step"] == at["last"]["step"] + 5 and end["settings"]["max_steps"] == end["last"]["step"]
