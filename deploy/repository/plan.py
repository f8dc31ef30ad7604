"""NVIDIA's apt repository, with its key and its pins. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

from qwen_rig.deploy.driver.plan import driver_action, from_own
from qwen_rig.deploy.toolkit.plan import toolkit_action
from qwen_rig.managed import (
    GUARD,
    NOVA,
    PREFERENCES,
    REPOSITORY,
    preferences_text,
    repository_files,
    repository_folder,
    repository_text,
)
from qwen_rig.plan.context import Context
from qwen_rig.plan.files import managed
from qwen_rig.plan.model import Action, Refusal, Step
from qwen_rig.plan.place import repository_at, repository_key
from qwen_rig.plan.planner import Parts, Planner, Rule, fact

THEIRS = re.compile(r"/etc/apt/sources\.list\.d/cuda-([a-z0-9]+)-x86_64\.list")


def step(ctx: Context, before: Sequence[Step]) -> Step:
    """Wanted where the driver or the toolkit must come from it."""
    if ctx.foreign_kernel:
        return Step("NVIDIA repository", "-", "-", Action.NA,
                    f"in a {ctx.machine.kind} the kernel belongs to the machine below")
    driver = driver_action(ctx).changes and not from_own(ctx)
    files = ctx.state.files
    configured = [path for path in repository_files(ctx.machine.os) if files.get(path)]
    if not (driver or toolkit_action(ctx).changes):
        return Step("NVIDIA repository", "configured" if configured else "none", "-", Action.NONE,
                    "no step needs it")
    if configured:
        return Step("NVIDIA repository", configured[0], configured[0], Action.NONE, "configured")
    url = repository_at(ctx)
    return Step("NVIDIA repository", "none", "signed, one origin", Action.ADD,
                f"the driver or the toolkit comes from it; {_key(ctx)}", bytes=None, fetches=("nvidia_apt",),
                files=managed(ctx, {REPOSITORY: repository_text(url), PREFERENCES: preferences_text(url, driver)}))


def _key(ctx: Context) -> str:
    """`signed by 8793F200: apt here …`: the key that the repository is trusted by, and why it isn't the usual one."""
    if wanted := ctx.knobs.source_nvidia_apt_key:
        return f"trusted by the key of source_nvidia_apt_key, {wanted[-8:]}"
    key = repository_key(ctx)
    if key is None:
        return "which key signs it isn't known"
    return f"signed by {key.fingerprint[-8:]}" + (f": {key.why}" if key.why else "")


def refusals(ctx: Context, steps: Sequence[Step]) -> list[Refusal]:
    """A source of NVIDIA's for another system, whose key this apt rejects: no `apt-get update` ends well beside it."""
    known = ctx.rules.driver_set(ctx.machine.os.id, ctx.machine.os.version_id)
    why = known.key.why if known and known.key else None
    alien = [path for path, digest in ctx.state.files.items() if digest and (found := THEIRS.fullmatch(path))
             and found[1] != repository_folder(ctx.machine.os)]
    if not why or not alien or not any(step.action.changes and "apt" in step.fetches for step in steps):
        return []
    return [Refusal(f"{alien[0]} is NVIDIA's source for another system, and apt can't update beside it: {why}",
                    f"delete {alien[0]}")]


def explain(ctx: Context) -> Parts:
    """The sources that are there."""
    there = [path for path, digest in ctx.state.files.items() if digest and path not in (*GUARD, *NOVA)]
    return [fact("apt sources of NVIDIA's", ", ".join(there), "probe.HostState")], [
        Rule("wanted where the driver or the toolkit must come from it", "the plan of those two steps"),
        Rule(f"{ctx.rules.nvidia_apt.url}, signed by its key alone", "qwen_rig/data/sources.yml, source_nvidia_apt")]


PLANNER = Planner(step, explain, knobs=("source_nvidia_apt",), refusals=refusals)
