"""What apt installs for a step, and the room that it takes. Pure."""

from __future__ import annotations

from qwen_rig.frozen import frozen
from qwen_rig.plan.context import Context
from qwen_rig.plan.model import Payload

PACKAGES, ARCHIVES = "/usr", "/var/cache/apt/archives"  # where apt's packages go, and where apt leaves their files


@frozen
class Packages(Payload):
    """What apt installs."""

    names: tuple[str, ...]


def disk(ctx: Context, name: str, replaces: bool = False) -> tuple[tuple[str, int], ...]:
    """(place, MiB) of a step that apt does, by rules.yml. `replaces`: the new files take the place of old ones."""
    installed, fetched = ctx.rules.room.get(name, (0, 0))
    return ((PACKAGES, 0 if replaces else installed), (ARCHIVES, fetched))
