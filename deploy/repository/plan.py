"""NVIDIA's apt repository, with its key and its pins. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from qwen_rig.deploy.driver.plan import driver_action
from qwen_rig.deploy.toolkit.plan import toolkit_action
from qwen_rig.managed import GUARD, PREFERENCES, REPOSITORY, preferences_text, repository_files, repository_text
from qwen_rig.plan.context import Context
from qwen_rig.plan.files import managed
from qwen_rig.plan.model import Action, Step
from qwen_rig.plan.place import repository_at
from qwen_rig.plan.planner import Parts, Planner, Rule, fact


def step(ctx: Context, before: Sequence[Step]) -> Step:
    """Wanted where the driver or the toolkit must come from it."""
    if ctx.foreign_kernel:
        return Step("NVIDIA repository", "-", "-", Action.NA, f"in a {ctx.machine.kind} the kernel is somebody else's")
    driver = driver_action(ctx)
    files = ctx.state.files
    configured = [path for path in repository_files(ctx.machine.os) if files.get(path)]
    if not (driver.changes or toolkit_action(ctx).changes):
        return Step("NVIDIA repository", "configured" if configured else "none", "-", Action.NONE,
                    "nothing has to come from it")
    if configured:
        return Step("NVIDIA repository", configured[0], configured[0], Action.NONE, "configured")
    url = repository_at(ctx)
    return Step("NVIDIA repository", "none", "signed, one origin", Action.ADD,
                "the driver or the toolkit comes from it", bytes=None, fetches=("nvidia_apt",), files=managed(ctx, {
                    REPOSITORY: repository_text(url), PREFERENCES: preferences_text(url, driver.changes)}))


def explain(ctx: Context) -> Parts:
    """The sources that are there."""
    there = [path for path, digest in ctx.state.files.items() if digest and path not in GUARD]
    return [fact("apt sources of NVIDIA's", ", ".join(there), "probe.HostState")], [
        Rule("wanted where the driver or the toolkit must come from it", "the plan of those two steps"),
        Rule(f"{ctx.rules.nvidia_apt.url}, signed by its key alone", "qwen_rig/data/sources.yml, source_nvidia_apt")]


PLANNER = Planner(step, explain, knobs=("source_nvidia_apt",))
