"""Signals at every door: an end at once, by 128 + the signal's number, that says what was done, what wasn't begun, and
what goes on; the command that it names goes on, and the one that stops a job stops it."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import HANG_S, until

from .conftest import REPO, Lab

pytestmark = pytest.mark.testbed
JOB = "[j]ob.sh body"
BEGUN: list[subprocess.Popen[bytes]] = []
LOCK = "/var/lib/qwen-rig/jobs/env/lock"


@pytest.fixture(scope="module")
def lab(bed: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    from testbed import HostSpec

    infos = bed.up([HostSpec("one", kind="container", driver="580.95.05:open")])
    yield Lab(bed, infos, tmp_path_factory.mktemp("signals"), compilers="never", cuda_toolkit="never", flash_attn="off")
    for process in BEGUN:
        process.kill()
    bed.down()


def _as_from_a_terminal() -> None:
    """nohup and a shell's & have some of them ignored, which children inherit."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def begun(lab: Lab, *command: str, terminal: int | None = None) -> tuple[subprocess.Popen[bytes], Path]:
    """A process of ours as its own session; what it says is in the file."""
    said = lab.folder / f"{time.monotonic_ns()}.log"
    with said.open("wb") as file:
        made = subprocess.Popen([sys.executable, "-m", *command], cwd=REPO, env=lab._environment({}),
                                stdin=subprocess.DEVNULL if terminal is None else terminal, stdout=file, stderr=file,
                                start_new_session=True, preexec_fn=_as_from_a_terminal)
    BEGUN.append(made)
    return made, said


def ended(process: subprocess.Popen[bytes], said: Path, number: int, press: int = 1) -> str:
    """Its last words after that signal."""
    for _ in range(press):
        os.kill(process.pid, number)
    assert process.wait(timeout=HANG_S) == 128 + number, said.read_text(errors="replace")
    text = said.read_text(errors="replace")
    assert "Traceback" not in text and "✓" not in text and "Exception" not in text, text
    return text[text.index(f"qwen-rig: ended by {signal.Signals(number).name}"):]


def at_the_job(lab: Lab, process: subprocess.Popen[bytes], said: Path, word: str = "") -> None:
    """Return when the env's job stands still, and the process waits for it."""
    def stands() -> bool:
        return process.poll() is not None or (word in said.read_text(errors="replace") and "both" in lab.on(
            "one", f"pgrep -f '[j]ob.sh supervise env' >/dev/null && pkill -STOP -f '{JOB}' && "
                   "pgrep -f '[j]ob.sh poll env' >/dev/null && echo both || :"))

    until(stands, lambda: said.read_text(errors="replace"))
    assert process.poll() is None, said.read_text(errors="replace")


def test_a_job_goes_on_and_the_command_that_is_named_attaches(lab: Lab) -> None:
    words = ""
    for number, word, command in (
            (signal.SIGINT, "Starting operation: Env", ("pyinfra", "inventories/lab.py", "-y", "deploy/5090.py")),
            (signal.SIGTERM, "attached to the job", ("qwen_rig", "apply", "--yes", "-i", str(lab.file)))):
        process, said = begun(lab, *command)
        at_the_job(lab, process, said, word)
        words = ended(process, said, number, press=3)
        assert re.search("  one  (done: .* · )?Env qwen-train goes on there by itself · not begun: .*Verific", words)
        again = words.partition("Go on: ")[2].strip()
        assert shlex.split(again)[-2:] == list(command)[-2:], again
    stop = re.search(r"to stop it: ssh -i \S+ \S+ (.+); the command below", words)
    assert stop
    lab.on("one", f"pkill -CONT -f '{JOB}' || :")
    lab.on("one", shlex.split(stop[1])[0])
    until(lambda: lab.on("one", f"flock -n {LOCK} echo free || :"))
    assert lab.rig("plan", "--save", str(lab.folder / "saved.json")).code == 2
    process, said = begun(lab, "qwen_rig", "apply", str(lab.folder / "saved.json"))
    at_the_job(lab, process, said)
    words = ended(process, said, signal.SIGHUP)
    assert "Go on: qwen-rig apply -i " in words and "saved.json" not in words, words
    again, shown = begun(lab, "pyinfra", "inventories/lab.py", "-y", "deploy/5090.py")
    until(lambda: "attached to the job" in shown.read_text() or again.poll() is not None, shown.read_text)
    other, told = begun(lab, "pyinfra", "inventories/lab.py", "-y", "deploy/5090.py", "--data", "verification_gpu=true")
    until(lambda: "waits for another run that writes env" in told.read_text() or other.poll() is not None,
          told.read_text)
    lab.on("one", f"pkill -CONT -f '{JOB}' || :")
    assert again.wait(HANG_S) == 0 and "attached to the job" in shown.read_text(), shown.read_text()
    assert other.wait(HANG_S) == 0 and "planned anew" in told.read_text(), told.read_text()
    assert lab.deploy("-y").code == 0


@pytest.mark.parametrize(("command", "asked"), [(("pyinfra", "inventories/lab.py", "deploy/5090.py"), "Press enter"),
                                                (("qwen_rig", "apply"), "Type yes")])
def test_before_anything_was_begun(lab: Lab, command: tuple[str, ...], asked: str) -> None:
    """At pyinfra's question and at ours; the host has what it had."""
    before = lab.fingerprint("one")
    ours, theirs = os.openpty()
    inventory = ("-i", str(lab.file)) if command[0] == "qwen_rig" else ()
    process, said = begun(lab, *command, *inventory, "--data", "env_name=two", terminal=theirs)
    until(lambda: asked in said.read_text(errors="replace") or process.poll() is not None,
          lambda: said.read_text(errors="replace"))
    words = ended(process, said, signal.SIGINT)
    os.close(ours)
    os.close(theirs)
    assert "nothing was changed" in words and "not begun: Env two" in words, words
    assert lab.fingerprint("one") == before
