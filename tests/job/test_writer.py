"""host/writer.sh, by the command that goes over SSH: one writer of an env at a time, and what the second is told."""

from __future__ import annotations

import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from qwen_rig.program import load
from qwen_rig.run import writer
from qwen_rig.run.job_protocol import PLACE, Answer, read
from tests import HANG_S


class Env:
    """A folder with jobs, as a host has one, and who asks to write there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "rig"

    def ask(self, verb: str, run: str, wish: str = "a", wait: int = 0, **more: Any) -> Answer:
        said = {"verb": verb, "name": "qwen-train", "run": run, "wish": wish, "wait": str(wait), "keep": "300",
                "since": str(int(time.time()) + 1), "gone": "", **{key: str(value) for key, value in more.items()}}
        call = writer.CLAIM(**said)
        text = call.text.replace(load(PLACE).text, f"b={self.folder}\n")
        assert text != call.text
        done = subprocess.run(["sh", "-c", text], input=call.stdin(), text=True, capture_output=True, timeout=HANG_S)
        answer = read(done.stdout)
        assert answer is not None, (done.stdout, done.stderr)
        return answer

    def claim(self, run: str, wish: str = "a", **more: Any) -> tuple[str, int | None]:
        answer = self.ask("claim", run, wish, **more)
        return answer.state, answer.code


@pytest.fixture
def env(tmp_path: Path) -> Env:
    return Env(tmp_path)


def test_the_second_waits_for_the_first_and_is_told_that_it_wrote(env: Env) -> None:
    assert env.claim("one") == ("done", 0) == env.claim("one")
    assert env.claim("two", "b") == ("busy", 0)
    assert env.claim("three", "b", name="other") == ("done", 0), "another env"
    timer = threading.Timer(1.5, lambda: env.ask("release", "one"))
    timer.start()
    assert env.claim("two", "b", wait=HANG_S) == ("done", 1)
    timer.join()
    assert env.claim("one") == ("busy", 0), "the right is the other's now"
    env.ask("release", "one")  # which was not its own any more
    assert env.claim("one") == ("busy", 0)


def test_who_wants_the_same_shares_and_who_looked_later_needs_no_new_look(env: Env) -> None:
    assert env.claim("one") == ("done", 0) == env.claim("two")
    env.ask("release", "one")
    assert env.claim("three", "b") == ("busy", 0), "two is still at it"
    env.ask("release", "two")
    assert env.claim("three", "b", since=int(time.time()) + 5) == ("done", 0)
    env.ask("release", "three", "b")
    assert env.claim("four", since=1) == ("done", 1)


def test_nobody_waits_for_one_that_is_gone_but_for_its_job(env: Env) -> None:
    env.claim("one", keep=-1)
    assert env.claim("two", "b") == ("done", 1), "it has not been heard of for long"
    assert env.claim("three", "c", gone="two") == ("done", 1)
    lock = env.folder / "jobs" / "env" / "lock"
    lock.parent.mkdir()
    with subprocess.Popen(["flock", str(lock), "sh", "-c", "echo; read x"], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE) as job:
        assert job.stdout and job.stdout.readline()
        assert env.claim("four", "d", gone="three") == ("busy", 0)
        job.communicate()
    assert env.claim("four", "d", gone="three") == ("done", 1)
    (env.folder / "jobs" / "writer.qwen-train").write_text("run=x\nwish=\x00\nbegan=²\n")
    assert env.claim("five", "e")[0] == "done", "a torn file is as good as none"


def test_a_process_of_this_machine_is_known_to_be_gone(tmp_path: Path) -> None:
    me = writer.Claims().me
    with subprocess.Popen(["sleep", "60"]) as other:
        name = writer._process(other.pid)
        assert name.count("-") == 2 and not writer.gone(name, me) and not writer.gone(me, me)
        other.kill()
    assert writer.gone(name, me) and not writer.gone(f"elsewhere{name}", me)
    assert not writer.gone("", me) and not writer.gone("somewhere-x", me) and not writer.gone("x", "x")
