"""Whether the disks hold what comes beside the env, and all of it where they share one. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from qwen_rig.deploy.env.plan import envs_dir, is_filled, prefix
from qwen_rig.plan.context import Context, gib
from qwen_rig.plan.model import Action, Refusal, Step
from qwen_rig.plan.place import disk_at, usable

PACKAGES, ARCHIVES = "/usr", "/var/cache/apt/archives"  # where apt's packages go, and where apt leaves their files


def refusals(ctx: Context, steps: Sequence[Step]) -> list[Refusal]:
    """Each disk that these steps would fill for certain. Of an env alone, deploy/env/plan.py says so."""
    taken: dict[str, dict[str, int]] = {}
    for step in steps:
        for place, mib in _takes(ctx, step):
            if mib and (disk := disk_at(ctx, place)):
                here = taken.setdefault(disk.mount, {})
                here[step.title] = here.get(step.title, 0) + mib
    env = next((step.title for step in steps if step.component == "env"), "")
    found = []
    for disk in ctx.machine.disks:
        here, free = taken.get(disk.mount, {}), disk.free_mib
        need = sum(here.values())
        if free >= need or not here.keys() - {env} or free < here.get(env, 0):
            continue
        alone = here.get(env, 0)
        roomy = [d.mount for d in ctx.machine.disks if d is not disk and usable(d) and d.free_mib >= alone]
        elsewhere = roomy[0] if roomy and alone and free >= need - alone else None
        clean = ": `apt-get clean` drops what apt has fetched before" if disk is disk_at(ctx, ARCHIVES) else ""
        found.append(Refusal(f"{disk.mount} has {gib(free)} free, and {', '.join(here)} take at least {gib(need)} "
                             "there", f"set data_dir to a folder on {elsewhere}" if elsewhere
                             else f"free {gib(need - free)} there{clean}"))
    return found


def _takes(ctx: Context, step: Step) -> list[tuple[str, int]]:
    """(place, MiB) of a step that changes something; [] where it takes next to nothing."""
    if not step.action.changes:
        return []
    if step.component == "env":
        return [(envs_dir(ctx), ctx.stack.disk_mib)] if is_filled(step) else []
    installed, fetched = ctx.rules.room.get(step.component, (0, 0))
    if step.component == "conda":  # its installer is fetched beside it
        return [(prefix(ctx), installed + fetched)]
    if step.component == "driver" and step.action is Action.CHANGE:  # the new files take the place of the old
        installed = 0
    return [(PACKAGES, installed), (ARCHIVES, fetched)]
