"""The reboot: due where the driver that is loaded isn't the one that is, or will be, installed. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from qwen_rig.deploy.driver.plan import branch, busy, driver_action, rejected
from qwen_rig.plan.context import Context, nova_holds
from qwen_rig.plan.model import Action, Refusal, Step
from qwen_rig.plan.planner import Parts, Planner, Rule, fact, loaded


def step(ctx: Context, before: Sequence[Step]) -> Step:
    """What the loaded and the installed driver demand, or the driver that this run installs."""
    if ctx.foreign_kernel:
        return Step("Reboot", "-", "-", Action.NA, f"in a {ctx.machine.kind} the kernel belongs to the machine below")
    driver = ctx.state.driver
    running, installed = driver.loaded_version, driver.installed_version
    now = f"loaded {running or 'none'}"
    if driver_action(ctx).changes:
        why, needed, wanted = "the new driver's modules must be loaded", True, f"loaded {branch(ctx)}"
    elif installed and (driver.nouveau_loaded or nova_holds(ctx.state)):
        holder = "nova_core" if nova_holds(ctx.state) else "nouveau"
        why, needed, wanted = f"{holder} holds the GPU", True, f"loaded {installed}"
    elif installed and installed != running:
        why, needed, wanted = f"installed {installed}, loaded {running or 'none'}", True, f"loaded {installed}"
    else:
        why, needed, wanted = "loaded and installed driver agree", False, now
    if not needed:
        return Step("Reboot", now, wanted, Action.NONE, why)
    if ctx.knobs.reboot == "never" or not ctx.root:
        return Step("Reboot", now, wanted, Action.NA,
                    f"needed ({why}), but " + ("reboot=never" if ctx.root else "it takes root"))
    return Step("Reboot", now, wanted, Action.REBOOT, why)


def refusals(ctx: Context, steps: Sequence[Step]) -> list[Refusal]:
    """Whose work a reboot would end; nothing where the driver's own refusals say so already."""
    if driver_action(ctx).changes or rejected(ctx):
        return []
    due = any(step.action is Action.REBOOT for step in steps)
    return busy(ctx, "the host must be rebooted") if due else []


def explain(ctx: Context) -> Parts:
    """The driver that runs and the one on disk."""
    return [*loaded(ctx), fact("nouveau loaded", ctx.state.driver.nouveau_loaded, "driver.NvidiaDriver")], [
        Rule("modules and libraries of two versions don't work together",
             "nvidia-smi's own error: Driver/library version mismatch")]


def _known_after_reboot(ctx: Context, step: Step) -> bool:
    return True


PLANNER = Planner(step, explain, knobs=("reboot",), refusals=refusals, known_after_reboot=_known_after_reboot,
                  needs=("driver",))
