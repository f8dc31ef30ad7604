"""Whether the disks hold what comes beside the env, and env and all where they share one disk. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from qwen_rig.plan.apt import ARCHIVES
from qwen_rig.plan.context import Context, gib
from qwen_rig.plan.model import Refusal, Step
from qwen_rig.plan.place import disk_at, usable


def refusals(ctx: Context, steps: Sequence[Step]) -> list[Refusal]:
    """Each disk that these steps would fill for certain. Of an env alone, deploy/env/plan.py says so."""
    taken: dict[str, dict[str, int]] = {}
    for step in steps:
        for place, mib in step.disk if step.action.changes else ():
            if mib and (disk := disk_at(ctx, place)):
                here = taken.setdefault(disk.mount, {})
                here[step.title] = here.get(step.title, 0) + mib
    env = next((step.title for step in steps if step.payload is not None and step.payload.new_env), "")
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
