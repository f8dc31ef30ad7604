"""One writer of an env at a time, from its first byte to its proof: whoever comes second waits, and then plans anew.

What a host keeps of it: qwen_rig/host/writer.sh. Two runs that wish for the same env share it, and attach to each
other's jobs (run/job.py).
"""

from __future__ import annotations

import hashlib
import os
import time
import uuid
from collections.abc import Collection
from contextlib import suppress
from dataclasses import fields
from functools import partial
from pathlib import Path

from qwen_rig.knobs import Knobs
from qwen_rig.plan import Context
from qwen_rig.program import Call, load
from qwen_rig.units import span

from . import adapter
from .adapter import LOST, Host, State
from .converge import script
from .job import POLL_S, Attendant
from .job_protocol import Answer, Job
from .memory import UNREAD
from .run import Run

STEPS = ("env", "flash_attn", "training", "verification")  # those that write an env, or prove it, in their order
CLAIM = load("host/jobs.sh", "host/writer.sh")
KEEP_S = 300  # a run that says no more for so long, with none of its jobs at work, is gone
ELSEWHERE = ("source_", "timeout_", "proxy", "mirrors", "bundle", "reboot", "launch_", "expect_", "nvidia_", "prefetch")


class Claims:
    """The envs that this run writes: `held`, by host. `me`: this process, as hosts know it; a later process on this
    machine can tell by it whether that one is gone."""

    def __init__(self) -> None:
        self.held: dict[str, Call] = {}  # with what gives it back
        self.me = _process(os.getpid()) or f"somewhere-{uuid.uuid4().hex[:12]}"


def _process(pid: int) -> str:
    """`MACHINE-PID-START` of a process that is there; "" where it isn't, or the system doesn't tell."""
    try:
        start = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19]
        here = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8") + os.readlink("/proc/self/ns/pid")
    except (OSError, IndexError, ValueError):
        return ""
    return f"{hashlib.sha256(here.encode()).hexdigest()[:12]}-{pid}-{start}"


def gone(name: str, me: str) -> bool:
    """Whether that run was a process of this machine, and is no more."""
    machine, _, rest = name.partition("-")
    pid = rest.partition("-")[0]
    return machine == me.partition("-")[0] and pid.isascii() and pid.isdigit() and _process(int(pid)) != name


def wish(ctx: Context) -> str:
    """What the env is to be, in short: of knobs that don't say where things come from, and the lock."""
    said = [f"{field.name}={getattr(ctx.knobs, field.name)!r}" for field in fields(Knobs)
            if not field.name.startswith(ELSEWHERE)]
    return hashlib.sha256("\n".join([*said, str(ctx.stack.lock_sha256)]).encode()).hexdigest()[:16]


def claim(host: Host, component: str) -> bool:
    """Wait until this run may write the host's env (inside a FunctionCommand); where another run has written there
    meanwhile, the host is looked at and planned anew. False, and a card, where this step can't be done then."""
    run, known = Run.of(host), Run.of(host).memory.context(host)
    answer = _waited(host, run, known)
    if answer is None:
        return False
    claims = run.part(Claims)
    if not claims.held:
        run.report.after_operation(partial(_release, run))
    claims.held[host.name] = _call(run, known, "release")
    if answer.code:
        run.memory.forget(host)
        return _still_wanted(host, run, component)
    return True


def _waited(host: Host, run: Run, known: Context) -> Answer | None:
    """What the host says once this run may write there; its code 1: another has written since our look. None, and a
    card: it may not."""
    env, call, told = known.knobs.env_name, _call(run, known, "claim"), False
    asking = Attendant(host, Job("writer", f"Env {env}", call, POLL_S), sudo=False)
    end = time.monotonic() + known.knobs.timeout_env + known.knobs.timeout_verification
    while (answer := asking.ask(call)) and answer.state == "busy":
        if time.monotonic() > end:
            run.report.fail(host.name, f"another run, with other settings, writes env {env} there since "
                            f"{span(answer.elapsed)}", "let that run end, or end it; then run this command again")
            return None
        if gone(answer.run, run.part(Claims).me):  # what it has begun is waited for all the same
            call = _call(run, known, "claim", gone=answer.run)
        if not told:
            run.report.progress(host.name, f"waits for another run that writes env {env} with other settings, begun "
                                           f"{span(answer.elapsed)} ago")
        told = True
    if answer and answer.state != "done":
        run.report.fail(host.name, f"env {env} can't be claimed for writing: {answer.why or answer.state}",
                        "mend that on the host, and run the same command again", said=[answer.why])
        return None
    return answer


def _still_wanted(host: Host, run: Run, component: str) -> bool:
    """Whether what comes before this step is as this run wants it, after another has written there; else its card."""
    run.report.progress(host.name, "another run has written there meanwhile: planned anew")
    try:
        steps = run.memory.plan(host).steps
    except UNREAD as error:
        run.report.fail(host.name, f"the host's state could not be read before this step: {error}",
                        "run the same command again")
        return False
    before = STEPS[:STEPS.index(component)]
    undone = next((step.title for step in steps if step.component in before and step.action.changes), "")
    if undone:
        run.report.fail(host.name, f"another run, with other settings, has changed {undone} there meanwhile",
                        "agree on the settings with whoever runs it, then run this command again")
    return not undone


def _release(run: Run, state: State, through: Collection[str]) -> None:
    """Let others write on the hosts that this run is through with."""
    held = run.part(Claims).held
    for host in adapter.hosts(state):
        if host.name in held and host.name in through:
            call = held.pop(host.name)
            if adapter.connected(host):
                with suppress(*LOST):
                    adapter.execute(host, script(call, POLL_S))


def _call(run: Run, ctx: Context, verb: str, gone: str = "") -> Call:
    return CLAIM(verb=verb, name=ctx.knobs.env_name, wish=wish(ctx), run=run.part(Claims).me, gone=gone,
                 since=str(int(ctx.state.machine.time or 0)), wait=str(POLL_S), keep=str(KEEP_S))
