"""The driver's guard: nouveau and nova_core stay out, unattended upgrades leave NVIDIA's packages alone. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from qwen_rig.deploy.driver.plan import driver_action
from qwen_rig.managed import guard, guard_digests
from qwen_rig.plan.context import Context, nova_holds
from qwen_rig.plan.files import managed
from qwen_rig.plan.model import Action, Step
from qwen_rig.plan.planner import Parts, Planner, Rule, fact


def step(ctx: Context, before: Sequence[Step]) -> Step:
    """Wanted where the driver is apt's, or will be."""
    if ctx.foreign_kernel:
        return Step("Driver guard", "-", "-", Action.NA,
                    f"in a {ctx.machine.kind} the kernel belongs to the machine below")
    nova = may_have_nova(ctx)
    title, wanted = "Driver guard", f"no nouveau{', no nova_core' if nova else ''}, no unattended upgrade"
    if not (driver_action(ctx).changes or any("nvidia" in name for name in ctx.state.dpkg)):
        return Step(title, "-", "-", Action.NA, "the driver isn't apt's")
    wrong = [path for path, digest in guard_digests(nova).items() if ctx.state.files.get(path) != digest]
    if not wrong:
        return Step(title, "set", "set", Action.NONE, wanted)
    if not ctx.root:
        return Step(title, "not set", "-", Action.NA, "needs root")
    absent = all(ctx.state.files.get(path) is None for path in wrong)
    return Step(title, "not set" if absent else "altered", wanted,
                Action.ADD if absent else Action.CHANGE,
                "unattended upgrades often leave driver and libraries at different versions",
                files=managed(ctx, guard(nova)))


def may_have_nova(ctx: Context) -> bool:
    """Whether the kernel may load nova_core: it is of a release that has it, or its driver holds a card now."""
    major = ctx.machine.kernel.partition(".")[0]
    return nova_holds(ctx.state) or (major.isdecimal() and int(major) >= 7)


def explain(ctx: Context) -> Parts:
    """The guard's files, and the packages that it is for."""
    states, nova = {None: "absent", "unreadable": "unreadable"}, may_have_nova(ctx)
    return [fact(path, states.get(ctx.state.files.get(path), "there"), "probe.HostState") for path in guard(nova)] + [
        fact("NVIDIA's packages", ", ".join(sorted(ctx.state.dpkg)[:4]), "driver.NvidiaPackages")], [
        *([Rule("nova_core, of kernels from 7.0 on, claims it as well", "beclab/Olares#3963")] if nova else []),
        Rule("nouveau claims the GPU at boot before NVIDIA's module can", "modprobe.d(5)"),
        Rule("Unattended-Upgrade::Package-Blacklist keeps a package from unattended upgrades",
             "apt.conf of unattended-upgrades")]


PLANNER = Planner(step, explain, needs=("driver",))
