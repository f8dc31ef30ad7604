"""Undo: the env's link goes back to what it pointed at before the last build. Nothing else on the host changes."""

from __future__ import annotations

import re
from collections.abc import Generator

from qwen_rig.facts._conda import GENERATION
from qwen_rig.plan import Action, Context, Plan, Step
from qwen_rig.plan.env import aside_names, current, env_record, envs_dir
from qwen_rig.program import load
from qwen_rig.run import adapter
from qwen_rig.run.adapter import Host, StringCommand
from qwen_rig.run.contain import entry, operation
from qwen_rig.run.converge import script
from qwen_rig.run.preview import probed
from qwen_rig.run.run import Run

FLIP = load("deploy/env/aside.sh", "deploy/rollback/flip.sh")


@entry
def undo() -> None:
    """Plan and declare the way back for the current host; a card where there is none."""
    host = adapter.current_host()
    plan = probed(host, lambda: _way_back(host))
    if plan is None:
        adapter.leave_out(host)
        return
    Run.of(host).report.plans[host.name] = plan
    _go_back(name="Go back to the env before")


def _way_back(host: Host) -> Plan | None:
    run = Run.of(host)
    ctx = run.memory.context(host)
    now, before = current(ctx), env_record(ctx).previous
    own, names = re.escape(ctx.knobs.env_name), aside_names(ctx.knobs.env_name)
    if before and before not in names and not GENERATION.fullmatch(before) \
            and not re.fullmatch(rf"{own}\.before-qwen-rig(-[0-9]+)?", before):  # the last: as release 0.2.0 gave it
        before = None  # no name that we give
    if now is None or not before:
        run.report.fail(host.name, "there is no env before this one to go back to",
                     "`rig plan` says what is wrong with it, `rig apply` mends it")
        return None
    step = Step(f"Env {ctx.knobs.env_name}", now.name, before, Action.CHANGE,
                "the link goes back; the env that it leaves is kept", component="undo")
    return Plan(host.name, "", (step,))


@operation()
def _go_back() -> Generator[StringCommand, None, None]:
    """Point the env's link at what it pointed at before; an env that was no generation gets its own name again."""
    host = adapter.current_host()
    run = Run.of(host)
    ctx, step = run.memory.context(host), run.report.plans[host.name].step("undo")
    run.report.started(host.name, step)
    yield _flip(ctx, step)
    run.memory.forget(host)


def _flip(ctx: Context, step: Step) -> StringCommand:
    call = FLIP(root=envs_dir(ctx), name=ctx.knobs.env_name, now=step.now, before=step.wanted)
    return script(call, 60)
