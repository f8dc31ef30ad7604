"""flash-attn, attempted: a verified wheel that imports and works, else SDPA. Either is a good end, and on record."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator

from pyinfra.api import deploy

from rig.plan import Context, Step

from . import _network
from ._converge import converge
from ._job import JobCommand
from ._programs import program


@deploy("flash-attn")
def flash_attn() -> None:
    """The attempt, and its record in the env."""
    converge("flash_attn", "Attempt flash-attn", _attempt)


def _attempt(ctx: Context, step: Step) -> Iterator[JobCommand]:
    spec = {**step.data, "wheels": _network.flash_wheels(ctx, step.data["wheels"])}
    turbo = (_network.turbo(ctx, wheel["url"]) for wheel in spec["wheels"])
    # The check stands beside the attempt, which runs it in a process of its own.
    yield program(ctx, ("attention.py", "flash_attn_check.py"),
                  f"--spec {shlex.quote(json.dumps(spec))}", ctx.knobs.timeout_verify,
                  head=_network.proxies(ctx) + next(filter(None, turbo), ""))
