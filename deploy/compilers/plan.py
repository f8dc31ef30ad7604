"""gcc and g++: wanted by Triton and torch.compile while training. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from qwen_rig.plan.apt import Packages, disk
from qwen_rig.plan.context import Context
from qwen_rig.plan.model import Action, Step
from qwen_rig.plan.planner import Parts, Planner, Rule, fact


def step(ctx: Context, before: Sequence[Step] = ()) -> Step:
    """Installed where they are missing, and apt and root are at hand."""
    have = ctx.machine.compilers
    missing = [name for name, found in (("gcc", have.gcc), ("g++", have.gxx)) if not found]
    now = f"gcc {have.gcc}" if have.gcc else "none"
    title, why = "C and C++ compiler", "Triton and torch.compile call gcc while training"
    if not missing:
        return Step(title, now, now, Action.NONE, why)
    if ctx.knobs.compilers == "never":
        return Step(title, now, "-", Action.NA, f"{why}; compilers=never: left as it is")
    if not ctx.root or not ctx.machine.tools.apt_get:
        return Step(title, now, "-", Action.NA, f"{why}, but installing needs root and apt")
    return Step(title, now, " ".join(missing), Action.ADD, why, payload=Packages(tuple(missing)),
                bytes=ctx.rules.compilers_bytes, fetches=("apt",), disk=disk(ctx, "compilers"),
                without="compilers=never does without")


def come(ctx: Context) -> bool:
    """Whether this run installs the compilers."""
    return step(ctx).action.changes


def explain(ctx: Context) -> Parts:
    """The compilers that are there."""
    have = ctx.machine.compilers
    return [fact("gcc", have.gcc, "host.Host"), fact("g++", have.gxx, "host.Host")], [
        Rule("Triton and torch.compile call gcc while training", ctx.rules.source("compilers"))]


PLANNER = Planner(step, explain, knobs=("compilers",))
