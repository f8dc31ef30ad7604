"""Undo: the env's link goes back to what it pointed at before the last build. Nothing else on the host changes."""

from __future__ import annotations

from collections.abc import Generator

from pyinfra.api import StringCommand, operation
from pyinfra.context import ctx_state, host

from qwen_rig.deploy.env.plan import current, env_record, envs_dir
from qwen_rig.plan import Action, Context, Plan, Step
from qwen_rig.program import load
from qwen_rig.run import report as _report
from qwen_rig.run import session as _session
from qwen_rig.run.converge import script
from qwen_rig.run.preview import probed

FLIP = load("deploy/rollback/flip.sh")


def undo() -> None:
    """Plan and declare the way back for the current host; a card where there is none."""
    plan = probed(_way_back)
    if plan is None:
        ctx_state.get().fail_hosts({host})
        return
    _report.plans[host.name] = plan
    _go_back(name="Go back to the env before")


def _way_back() -> Plan | None:
    ctx = _session.context(host)
    now, before = current(ctx), env_record(ctx).previous
    if now is None or not before:
        _report.fail(host.name, "there is no env before this one to go back to",
                     "`rig plan` says what is wrong with it, `rig apply` mends it")
        return None
    step = Step("undo", f"Env {ctx.knobs.env_name}", now.name, before, Action.CHANGE,
                "the link goes back; the env that it leaves is kept")
    return Plan(host.name, "", (step,))


@operation()
def _go_back() -> Generator[StringCommand, None, None]:
    """Point the env's link at what it pointed at before; an env that was no generation gets its own name again."""
    ctx, step = _session.context(host), _report.plans[host.name].step("undo")
    _report.started(host.name, step)
    yield _flip(ctx, step)
    _session.forget(host)


def _flip(ctx: Context, step: Step) -> StringCommand:
    call = FLIP(root=envs_dir(ctx), name=ctx.knobs.env_name, now=step.now, before=step.wanted)
    return script(call, 60)
