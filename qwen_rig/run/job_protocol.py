"""A long step as a job on the host (qwen_rig/host/job.sh): what identifies it, the commands, the answers, the progress.

Pure: no SSH, no clock. qwen_rig/run/job.py starts, polls and re-attaches.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable
from dataclasses import field

from qwen_rig.frozen import frozen
from qwen_rig.program import Call, load
from qwen_rig.units import span

MARK = "@job "
# What a job may print: done, of how many, of what.
PROGRESS = re.compile(r"@progress ([0-9]{1,9}) ([0-9]{1,9})(?: (.+))?")
# What apt says of a lock that it waits for, or was refused.
LOCKED = re.compile(r"(?:Waiting for cache lock|E): Could not get lock /\S*"
                    r"(?: It is held by process ([0-9]{1,10}) \((.{1,40}?)\))?")
STATES = ("running", "done", "aborted", "busy", "gone", "error")
SAY_EVERY_S = 60  # without news, a sign of life this often
TELLING = 4  # kernels take from seconds to minutes: from the first few of 73, 40 min and 2 h 13 were told of one build

PLACE = "host/jobs.sh"  # where the host keeps its jobs
START, POLL = load(PLACE, "host/start.sh"), load(PLACE, "host/poll.sh")


@frozen
class Job:
    """One long step. Two with the same `key` are the same job: same step, program, arguments and input.

    The program reads `stdin`, which always ends in a newline where it isn't empty; `seconds` is the time limit, kept on
    the host. ValueError where one holds a NUL: no shell carries that.
    `nice` is nice(1)'s; `oom` is added to the score by which the kernel chooses what to end when memory is out
    (proc(5), oom_score_adj, 0 to 1000).
    """

    step: str
    title: str
    call: Call
    seconds: int
    stdin: str = field(default="", repr=False)
    nice: int = 0
    oom: int = 0

    def __post_init__(self) -> None:
        try:
            self.call.stdin(self.stdin)
        except ValueError as error:
            raise ValueError(f"job {self.step}: {error}") from None

    @property
    def payload(self) -> str:
        """What the host reads: the program in base64 on one line, then its standard input, arguments first."""
        encoded = base64.b64encode(self.call.text.encode()).decode()
        stdin = self.call.stdin(self.stdin)
        return f"{encoded}\n{stdin}" + ("" if stdin.endswith("\n") or not stdin else "\n")

    @property
    def key(self) -> str:
        """sha256 of the payload."""
        return hashlib.sha256(self.payload.encode()).hexdigest()


@frozen
class Answer:
    """How a job stands. `state`: running (`why`: bound where logind ends it with its session) · done (`code` tells
    how; `why` of one that failed: oom, where the kernel ended a program for want of memory meanwhile) · aborted
    (`why`: killed, logout or reboot) · busy (another job of this step is at work) · gone (the host knows no such run) ·
    error (`why`).

    Times in seconds of the host's clock, `now` of a job that is done when it ended; `limit`: how long it may take;
    `to`: lines of log so far; `log`: its path on the host.
    """

    state: str
    run: str = ""
    key: str = ""
    started: int = 0
    now: int = 0
    to: int = 0
    limit: int = 0
    code: int | None = None
    why: str = ""
    log: str = ""
    lines: tuple[str, ...] = ()

    @property
    def elapsed(self) -> int:
        return max(0, self.now - self.started)


def program() -> str:
    """host/job.sh."""
    return load("host/job.sh").text


def start(job: Job, run: str, wait: int, since: int = 0) -> tuple[Call, str]:
    """What starts the job or attaches to it, and that program's own standard input.

    `run` names this beginning: sent again after an answer was lost, it starts nothing a second time. `since`: when, by
    the host's clock, its state was read: such a job that has ended well after that is not done again. 0: it is.
    """
    runner = program().encode()
    words = (job.step, job.key, run, *map(str, (job.seconds, job.nice, job.oom, wait, since)))
    return (START(*words, digest=hashlib.sha256(runner).hexdigest()),
            base64.b64encode(runner).decode() + "\n" + job.payload)


def poll(job: Job, run: str, seen: int, wait: int) -> Call:
    """What waits up to `wait` seconds for the run's end and says how it stands since line `seen`."""
    return POLL(job.step, run, str(seen), str(wait))


def read(output: str) -> Answer | None:
    """What the host answered; None where that is no answer (a connection that broke, a shell that refused)."""
    _, mark, answer = f"\n{output}".partition(f"\n{MARK}")  # sudo and PAM may have spoken before
    if not mark:
        return None
    first, _, rest = answer.partition("\n")
    head, _, why = first.partition(" why=")
    said = dict(word.partition("=")[::2] for word in head.split(" "))
    state = said.get("state", "")
    if state not in STATES:
        return Answer("error", why=f"it answered {first[:200]!r}")
    numbers = {name: _number(said.get(name, "")) or 0 for name in ("started", "now", "to", "limit")}
    return Answer(state, said.get("run", ""), said.get("key", ""), **numbers, code=_number(said.get("code", "")),
                  why=why.strip(), log=said.get("log", ""), lines=tuple(rest.splitlines()))


def _number(text: str) -> int | None:
    """A number as the runner writes one; None where it is none."""
    return int(text) if re.fullmatch(r"[0-9]{1,12}", text) else None


def last(lines: list[str], most: int) -> list[str]:
    """The last of a log, as many lines as make up that many bytes (four where a letter isn't of ASCII's)."""
    room = most
    for index in range(len(lines) - 1, -1, -1):
        room -= len(lines[index]) + 1
        if room < 0:
            return lines[index + 1:] or [lines[-1][-most:]]
    return lines


def plain(lines: Iterable[str]) -> list[str]:
    """A log without its progress marks, and with apt's wait for a lock, a line a second, once."""
    kept: list[str] = []
    for line in lines:
        if not PROGRESS.fullmatch(line) and not (LOCKED.match(line) and line in kept[-1:]):
            kept.append(line)
    return kept


def cause(code: int | None, limit: int, why: str = "") -> str:
    """Why a job ended with that exit code, where its runner or the kernel ended it; empty for what the job's own words
    explain. `why`: as the answer has it."""
    if code and code != 124 and why == "oom":
        return "the kernel ended a program for want of memory (the machine's, or its container's limit) meanwhile"
    return {124: f"out of time: ended after {span(limit)}", 137: "killed: out of memory, or by somebody"}.get(
        code or 0, "")


def _holder(locked: re.Match[str]) -> str:
    """What to say of a lock of apt's: who holds it."""
    name = f"{locked[2]} (pid {locked[1]})" if locked[1] else "another process"
    return f"waits for {name}, which holds apt's lock"


class Progress:
    """Turns what a job prints into the few lines that a person wants to see."""

    def __init__(self) -> None:
        self._mark: tuple[int, int, str] | None = None
        self._said: tuple[tuple[int, int, str] | None, int] = (None, 0)
        self._last = self._waits = ""

    def feed(self, answer: Answer) -> str | None:
        """What to say now: who is waited for, once; `31/73 kernels · 12 min · ~16 left` when the count has moved; a
        sign of life with the last line of the log after each minute without. None where there's nothing to say. No time
        is said to be left before a part of 1 / TELLING is done."""
        waits = ""
        for line in answer.lines:
            if found := PROGRESS.fullmatch(line):
                self._mark = (int(found[1]), int(found[2]), found[3] or "")
            elif locked := LOCKED.match(line):
                self._last = waits = _holder(locked)
            elif line.strip():
                self._last = line.strip()
        if waits and waits != self._waits:
            self._waits = waits
            return waits
        mark, elapsed = self._said
        if self._mark == mark and answer.elapsed - elapsed < SAY_EVERY_S:
            return None
        self._said = (self._mark, answer.elapsed)
        if self._mark is None:
            last = f" · {self._last[:80]}" if self._last else ""
            return f"{span(answer.elapsed)}{last}"
        done, total, unit = self._mark
        left = ""
        if total <= TELLING * done and done < total:
            left = f" · ~{span(answer.elapsed * (total - done) / done).removesuffix(' min')} left"
        return f"{done}/{total}{f' {unit}' if unit else ''} · {span(answer.elapsed)}{left}"
