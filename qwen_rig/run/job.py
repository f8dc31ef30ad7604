"""Long steps as jobs that outlive the connection: start or attach, poll, re-attach after a drop, never start twice."""

from __future__ import annotations

import random
import time
import uuid
from typing import Any, Protocol

from qwen_rig.catalog.bounds import load_bounds
from qwen_rig.frozen import frozen
from qwen_rig.plan import Step
from qwen_rig.program import Call
from qwen_rig.ssh import shell_line
from qwen_rig.units import span

from . import adapter, beforehand
from . import job_protocol as jobs
from .adapter import LOST, FunctionCommand, Host, State
from .converge import script
from .job_protocol import Answer, Job, Progress
from .limits import Hopeless
from .run import Run

POLL_S = 15  # one question waits on the host for the job's end this long: four round trips a minute
RESTARTS = 2  # of a job that was cut off (a reboot, a kill) within one operation
LOGOUT = "logind ends it with the connection (KillUserProcesses=yes)"
CUT_OFF = {"reboot": "the host was rebooted", "killed": "it was killed", "logout": LOGOUT}  # why, as the host says it
BACKOFF_S = (1, 30)  # the first and the longest pause between two tries to connect again


@frozen
class Outcome:
    """How a job ended. `lines`: its log, without progress marks; `log`: the log's path on the host."""

    ok: bool
    lines: tuple[str, ...] = ()
    code: int | None = None
    log: str = ""


class JobCommand(FunctionCommand):
    """A job as a command of an operation; with the operation's sudo it is root's job."""

    def __init__(self, job: Job) -> None:
        super().__init__(attend, (job,), {})
        self.job = job

    def __repr__(self) -> str:
        return f"job {self.job.step} (key {self.job.key[:12]}) on the host"

    def execute(self, state: State, host: Host, connector_arguments: Any) -> bool:
        return attend(host, self.job, sudo=bool(connector_arguments.get("_sudo"))).ok


def job(step: Step, call: Call, seconds: int, stdin: str = "", nice: int = 0, oom: int = 0) -> JobCommand:
    """A long step's program as a command to yield: `script()` for whatever can take more than a minute."""
    return JobCommand(Job(step.component, step.title, call, seconds, stdin, nice, oom))


class Shown(Protocol):
    """What makes of an answer what is said of the progress: Progress, or another's own words."""

    def feed(self, answer: Answer) -> str | None: ...


def attend(host: Host, job: Job, sudo: bool = False, shown: Shown | None = None, begun: str = "",
           wait: int = POLL_S, restarts: int = RESTARTS) -> Outcome:
    """Start the job or attach to it, show its progress, and come back with its end (inside a FunctionCommand).

    `begun`: attach to that beginning of it alone, and start nothing; `wait`: seconds that one question may wait;
    `restarts`: how often it is begun again where it was cut off.

    The job's own failure, its time limit and a connection that stays lost all end as an Outcome that isn't ok, with
    the last words already on record for the host's card.
    """
    return Attendant(host, job, sudo, shown, begun, wait, restarts).attend()


class Attendant:
    """One job of one host, seen through to its end."""

    def __init__(self, host: Host, job: Job, sudo: bool, shown: Shown | None = None, begun: str = "",
                 wait: int = POLL_S, restarts: int = RESTARTS) -> None:
        self.host, self.job, self.sudo, self.run = host, job, sudo, Run.of(host)
        self.shown, self.begun, self.wait, self.restarts = shown or Progress(), begun, wait, 0 if begun else restarts
        self.patience = beforehand.knobs(host).timeout_reconnect
        known = self.run.memory.remembered(host)
        self.since = known.machine.time if known else 0
        self.bounds = load_bounds()
        self.limit = job.seconds + self.bounds.step.slack_seconds
        self.lines: list[str] = []
        self.seen = False  # at work there, by the host's own word
        self.bound = False  # to the connection

    def attend(self) -> Outcome:
        answer = self._once()
        for _ in range(self.restarts):
            if answer is None or answer.state not in ("aborted", "gone"):
                break
            self._tell(f"cut off ({CUT_OFF.get(answer.why, 'the host forgot it')}): starting again")
            answer = self._once()
        if answer is None:  # the card is written
            return Outcome(False, tuple(self.lines))
        if answer.state == "done" and answer.code == 0:
            return Outcome(True, tuple(self.lines), 0, answer.log)
        why = jobs.cause(answer.code, answer.limit, answer.why)
        if answer.code == 124:  # or a `timeout` of the script's own, which has words of its own
            why = f"{why}; raise its timeout_… knob" if answer.elapsed >= answer.limit else ""
        if answer.state != "done":
            why = f"{self.job.title} could not be run: {CUT_OFF.get(answer.why, answer.why) or answer.state}"
        where = [f"log on the host: {answer.log}"] if answer.log else []
        self.run.report.said(self.host.name, [*self.lines, *([f"qwen-rig: {why}"] if why else []), *where])
        return Outcome(False, tuple(self.lines), answer.code, answer.log)

    def _once(self) -> Answer | None:
        """One beginning of the job, to its end; None where the connection stays lost (its card is written)."""
        if self.begun:
            self.run.report.jobs[self.host.name] = (self.job.step, self.sudo)
            return self._through(self.ask(jobs.poll(self.job, self.begun, 0, self.wait)))
        own = uuid.uuid4().hex[:12]
        self.run.report.jobs[self.host.name] = (self.job.step, self.sudo)  # from its asking on it may be at work
        while True:
            answer = self.ask(*jobs.start(self.job, own, self.wait, self.since))
            if answer is None or answer.state != "busy":
                break
            self._tell(f"waits for another run that does this step with other settings, "
                       f"begun {span(answer.elapsed)} ago")
            other, end = answer.run, self._end()
            while answer and answer.state in ("busy", "running"):
                if time.monotonic() > end:
                    self._overdue(answer, "another run's is at work there, and")
                    return None
                answer = self.ask(jobs.poll(self.job, other, answer.to, POLL_S))
        if answer and answer.run not in ("", own):
            self._tell("done meanwhile by another run" if answer.state == "done" else
                       f"attached to the job that is at work there, begun {span(answer.elapsed)} ago")
            self.run.report.under_way(self.host.name, min(answer.elapsed, self.limit))  # the host's own word
        return self._through(answer)

    def _through(self, answer: Answer | None) -> Answer | None:
        """The same beginning's end, its progress shown meanwhile."""
        self.lines.clear()
        end = self._end()
        while answer:
            self.lines = jobs.last(self.lines + jobs.plain(answer.lines), self.bounds.log.bytes)
            if answer.state != "running":
                break
            if time.monotonic() > end:
                self._overdue(answer)
                return None
            if answer.why == "bound" and not self.bound:
                self.bound = True
                self.run.report.jobs.pop(self.host.name, None)  # nothing goes on there by itself
                self._tell(f"{LOGOUT}: `sudo loginctl enable-linger` for this user, on the host, lets it go on alone")
            if said := self.shown.feed(answer):
                self._tell(said)
            answer = self.ask(jobs.poll(self.job, answer.run, answer.to, self.wait))
        if answer:
            self.run.report.jobs.pop(self.host.name, None)
        return answer

    def ask(self, call: Call, stdin: str = "") -> Answer | None:
        """Ask the host; a connection that breaks is made again, as often as patience lasts (None: it ran out)."""
        end = None
        pause = float(BACKOFF_S[0])
        while True:
            try:
                if end is None or self.run.links.reconnected(self.host):
                    _, output, lines = adapter.execute(self.host, script(call, POLL_S + 60, stdin), self.sudo)
                    if answer := jobs.read(output):
                        self.seen = self.seen or answer.state == "running"
                        if end is not None:
                            self._tell("connected again")
                        return answer
                    if lines and adapter.connected(self.host):
                        return Answer("error", why=" ".join(lines[-3:]), lines=tuple(lines[-3:]))
            except Hopeless:
                raise
            except LOST:
                pass
            if end is None:
                end = time.monotonic() + self.patience
                ends = ", and the job ends with it;" if self.bound else "; the job goes on there,"
                self._tell(f"connection lost{ends if self.seen else ','} connecting again")
            elif time.monotonic() > end:
                self._lost()
                return None
            time.sleep(pause * random.uniform(0.5, 1))
            pause = min(2 * pause, BACKOFF_S[1])

    def _lost(self) -> None:
        """Write the card of a host that did not come back: what is known of the job there, and no more."""
        last = self.run.links.refused.get(self.host.name, "")
        then = "" if self.seen and self.bound else ": it attaches to what is at work there"
        if not self.seen:
            stands = f"whether {self.job.title} was begun there isn't known"
        elif self.bound:
            stands = f"{self.job.title} was ended with it"
        else:
            stands = f"{self.job.title} was at work there, and goes on unless the host went down"
        self.run.report.fail(
            self.host.name, f"connection lost, and not back within {span(self.patience)}: {stands}"
            f"{f'; at the last try: {last}' if last else ''}",
            f"run the same command again when the host can be reached{then}")

    def _end(self) -> float:
        """When this machine stops asking for what begins now: the job's limit is the host's to keep, and may not be."""
        return time.monotonic() + self.limit

    def _overdue(self, answer: Answer, what: str = "it") -> None:
        """Write the card of a host that would have been asked for ever."""
        limit, slack = span(self.job.seconds), span(self.bounds.step.slack_seconds)
        login = shell_line(self.host.name, adapter.data(self.host))
        where = f": {login} tail {answer.log}" if answer.log else ""
        self.run.report.fail(
            self.host.name, f"{self.job.title}: {what} has not ended within its limit of {limit} and {slack} more",
            f"see what it waits for{where}; the same command again attaches to what is at work there")

    def _tell(self, text: str) -> None:
        self.run.report.progress(self.host.name, text)
