"""Conda: adopt a sound one, else install Miniforge. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from qwen_rig.plan.context import Context
from qwen_rig.plan.env import conda, prefix
from qwen_rig.plan.model import Action, Payload, Step
from qwen_rig.plan.planner import OURS, Parts, Planner, Rule, fact


@dataclass(frozen=True)
class CondaPayload(Payload):
    """Where Miniforge goes, or the adopted conda is."""

    prefix: str


def step(ctx: Context, before: Sequence[Step]) -> Step:
    """Adopted where a sound one is there; a broken one is left alone."""
    found = conda(ctx)
    if found:
        what = f"{found.kind} {found.version or ''}".strip()
        return Step("Conda", what, what, Action.NONE, f"adopted: {found.prefix}",
                    payload=CondaPayload(prefix(ctx)))
    broken = [row.prefix for row in ctx.state.conda]
    why = f"{broken[0]} is broken; it is left alone" if broken else "none on this host"
    release = ctx.rules.miniforge
    version = ctx.knobs.source_miniforge_version or release.version
    return Step("Conda", "broken" if broken else "none", f"Miniforge {version}", Action.ADD, why,
                bytes=release.bytes if version == release.version else None,
                fetches=("miniforge",), payload=CondaPayload(_free_prefix(ctx, broken)),
                disk=((prefix(ctx), sum(ctx.rules.room.get("conda", (0, 0)))),))  # its installer is fetched beside it


def _free_prefix(ctx: Context, broken: list[str]) -> str:
    """Our own prefix, or a name beside it where a conda sits there that is broken or not ours alone: it isn't ours to
    remove."""
    wanted = prefix(ctx)
    refused = {row.subject for row in ctx.state.refused}
    return f"{wanted}-qwen-rig" if wanted in broken or wanted in refused else wanted


def explain(ctx: Context) -> Parts:
    """The condas that were found, and what makes one sound."""
    found = [fact("conda", f"{row.kind} {row.version or ''} at {row.prefix}, "
                   + ("sound" if row.sound else "broken"), "conda.CondaInstalls") for row in ctx.state.conda]
    used = conda(ctx)
    return found, [Rule("a sound one is adopted, a broken one left alone" + (f": {used.prefix}" if used else ""),
                        OURS)]


PLANNER = Planner(step, explain, knobs=("conda_prefix",))
