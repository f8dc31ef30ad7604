"""What a host says of its jobs, read; and what a person is told of their progress."""

from __future__ import annotations

import base64
import hashlib

import pytest

from qwen_rig.program import Program
from qwen_rig.run import job_protocol as jobs
from qwen_rig.run.job_protocol import Answer, Job, Progress, read, span


def test_two_jobs_are_the_same_by_step_script_and_input_alone() -> None:
    one = Job("env", "Env", Program("true")(), 60)
    assert one.key == Job("env", "another title", Program("true")(), 90, nice=10).key
    false = Job("env", "Env", Program("false")(), 60)
    assert len({one.key, false.key, Job("env", "Env", Program("true")(), 60, "input").key}) == 3
    script, _, rest = Job("env", "Env", Program("cat")(), 60, "a\nb").payload.partition("\n")
    assert base64.b64decode(script).endswith(b"\ncat") and rest == "a\nb\n"
    key = hashlib.sha256(f"{script}\na\nb\n".encode()).hexdigest()
    assert Job("env", "Env", Program("cat")(), 60, "a\nb").key == key


@pytest.mark.parametrize("more", [{"text": "a\0b"}, {"word": "\0"}, {"variable": "\0"}, {"stdin": "\0"}])
def test_what_no_shell_can_carry_is_refused(more: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"job env: .* NUL"):
        Job("env", "Env", Program(more.get("text", "cat"))(more.get("word", ""), x=more.get("variable", "")), 1,
            more.get("stdin", ""))


def test_the_arguments_are_part_of_what_a_job_is() -> None:
    cat = Program("cat")
    jobs = [Job("env", "Env", call, 60) for call in (cat(), cat("a"), cat("b"), cat("a", "b"), cat(a="b"), cat("a=b"))]
    assert len({job.key for job in jobs}) == len(jobs)
    with pytest.raises(ValueError, match="can't be a variable"):
        cat(PATH="/")


def test_an_answer_and_its_log() -> None:
    made = read("@job state=done run=ab12 key=c0 started=100 now=160 to=2 code=3 limit=90 log=/var/lib/x why=\n"
                "one\ntwo\n")
    assert made == Answer("done", "ab12", "c0", 100, 160, 2, 90, 3, "", "/var/lib/x", ("one", "two"))
    assert made.elapsed == 60


def test_the_reason_is_the_rest_of_the_line_as_it_was() -> None:
    made = read("@job state=error why=mkdir: cannot create '/root/a b=c_d': No space left on device \n")
    assert made and (made.state, made.why) == ("error", "mkdir: cannot create '/root/a b=c_d': No space left on device")


def test_what_sudo_or_pam_says_before_it_is_no_part_of_it() -> None:
    made = read("We trust you have received the lecture.\n@job state=done code=0 to=1 why=\n@job state=gone why=\n")
    assert made == Answer("done", to=1, code=0, lines=("@job state=gone why=",))


@pytest.mark.parametrize("output", ["", "sh: 1: base64: not found\n", "see the @job state=done code=0 why=\n"])
def test_what_is_no_answer(output: str) -> None:
    assert read(output) is None


def _running(elapsed: int, *lines: str) -> Answer:
    return Answer("running", "r", started=1000, now=1000 + elapsed, lines=lines)


def test_progress_says_what_has_moved_and_a_sign_of_life() -> None:
    shown = Progress()
    assert shown.feed(_running(5, "Reading lists")) is None, "no news worth a line yet"
    assert shown.feed(_running(60)) == "1 min · Reading lists"
    assert shown.feed(_running(60, "@progress 1 73 kernels")) == "1/73 kernels · 1 min", "one tells nothing of the rest"
    assert shown.feed(_running(500, "@progress 18 73 kernels")) == "18/73 kernels · 8 min"
    assert shown.feed(_running(520, "@progress 19 73 kernels")) == "19/73 kernels · 9 min · ~25 left"
    assert shown.feed(_running(720, "nvcc …", "@progress 31 73 kernels")) == "31/73 kernels · 12 min · ~16 left"
    assert shown.feed(_running(730, "@progress 31 73 kernels")) is None, "nothing has moved"
    assert shown.feed(_running(800)) == "31/73 kernels · 13 min · ~18 left"
    assert shown.feed(_running(801, "@progress 73 73 kernels")) == "73/73 kernels · 13 min"
    assert shown.feed(_running(802, "@progress 1 2")) == "1/2 · 13 min · ~13 left"


def test_whoever_holds_apts_lock_is_named_at_once_and_once() -> None:
    """The words of apt 2.6 and 3.0, of a lock that it waits for and of one that it doesn't."""
    waits = "Waiting for cache lock: Could not get lock /var/lib/dpkg/lock-frontend. It is held by process {} ({})"
    shown = Progress()
    first = waits.format(1752, "unattended-upgr")
    assert shown.feed(_running(1, first)) == "waits for unattended-upgr (pid 1752), which holds apt's lock"
    assert shown.feed(_running(2, first, first)) is None
    assert shown.feed(_running(3, waits.format(9, "apt-get"), "Reading lists")) == (
        "waits for apt-get (pid 9), which holds apt's lock")
    lists = "E: Could not get lock /var/lib/apt/lists/lock - open (11: Resource temporarily unavailable)"
    assert Progress().feed(_running(1, lists)) == "waits for another process, which holds apt's lock"
    assert jobs.plain([first, first, first, "Setting up x"]) == [first, "Setting up x"]


def test_marks_of_progress_are_no_part_of_the_log() -> None:
    assert jobs.plain(["a", "@progress 1 2 files", "@progress is a word", "b"]) == ["a", "@progress is a word", "b"]


@pytest.mark.parametrize("seconds, said", [(0, "0 s"), (59, "59 s"), (60, "1 min"), (3599, "1 h 00 min"),
                                           (3540, "59 min"), (7500, "2 h 05 min")])
def test_spans(seconds: int, said: str) -> None:
    assert span(seconds) == said
