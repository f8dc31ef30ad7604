"""Conda: adopt a sound one, else install Miniforge. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from qwen_rig.frozen import frozen
from qwen_rig.plan.context import Context
from qwen_rig.plan.env import conda, fits_shebang, prefix, too_old
from qwen_rig.plan.model import Action, Payload, Refusal, Step
from qwen_rig.plan.planner import OURS, Parts, Planner, Rule, fact


@frozen
class CondaPayload(Payload):
    """Where Miniforge goes, or the adopted conda is."""

    prefix: str


def step(ctx: Context, before: Sequence[Step]) -> Step:
    """Adopted where a sound one is there; our own is mended where it is broken, any other left alone."""
    found = conda(ctx)
    if found:
        what = f"{found.kind} {found.version or ''}".strip()
        return Step("Conda", what, what, Action.NONE, f"adopted: {found.prefix}",
                    payload=CondaPayload(prefix(ctx)), won=what)
    broken = [row.prefix for row in ctx.state.conda]
    old = next((row for row in ctx.state.conda if row.sound and too_old(ctx, row)), None)
    ours = next((row for row in ctx.state.conda if row.ours and row.prefix == prefix(ctx)), None)
    why = f"our own at {ours.prefix} is broken: it is mended there, and its envs stay" if ours else \
        f"{broken[0]} is broken; it is left alone" if broken else "none on this host"
    if old:
        why = (f"conda {old.version} at {old.prefix} is too old for Python {ctx.knobs.python} (before "
               f"{ctx.rules.oldest_conda}); it is left alone")
    release = ctx.rules.miniforge
    version = ctx.knobs.source_miniforge_version or release.version
    now = f"{old.version}, too old" if old else "broken" if broken else "none"
    return Step("Conda", now, f"Miniforge {version}", Action.CHANGE if ours else Action.ADD, why,
                bytes=release.bytes if version == release.version else None,
                fetches=("miniforge",), payload=CondaPayload(ours.prefix if ours else _free_prefix(ctx, broken)),
                disk=((prefix(ctx), sum(ctx.rules.room.get("conda", (0, 0)))),))  # its installer is fetched beside it


def _free_prefix(ctx: Context, broken: list[str]) -> str:
    """Our own prefix, or a name beside it where a conda sits there that is broken or not ours alone: it isn't ours to
    remove."""
    wanted = prefix(ctx)
    refused = {row.subject for row in ctx.state.refused}
    return f"{wanted}-qwen-rig" if wanted in broken or wanted in refused else wanted


def refusals(ctx: Context, steps: Sequence[Step]) -> list[Refusal]:
    """A place of the user's own for a conda that can't be there: the path is too long, or an older conda is there."""
    made = [step.payload.prefix for step in steps if step.action.changes and isinstance(step.payload, CondaPayload)]
    named = next((row for row in ctx.state.conda if row.prefix == ctx.knobs.conda_prefix and too_old(ctx, row)), None)
    if made and named:
        return [Refusal(f"conda_prefix names conda {named.version} at {named.prefix}, which is too old for Python "
                        f"{ctx.knobs.python} (before {ctx.rules.oldest_conda})",
                        "name an empty place, or leave conda_prefix out: Miniforge goes beside it")]
    return [Refusal(f"{path} is too long: conda's programs there couldn't name their Python in {ctx.rules.shebang} "
                    "characters", "set conda_prefix (or data_dir) to a shorter path")
            for path in made if not fits_shebang(ctx, path)]


def explain(ctx: Context) -> Parts:
    """The condas that were found, and what makes one sound."""
    found = [fact("conda", f"{row.kind} {row.version or ''} at {row.prefix}, "
                   + ("sound" if row.sound else "broken"), "conda.CondaInstalls") for row in ctx.state.conda]
    used = conda(ctx)
    return found, [Rule("a sound one is adopted, our own is mended where it is broken, any other left alone"
                        + (f": {used.prefix}" if used else ""), OURS),
                   Rule(f"conda {ctx.rules.oldest_conda} is the oldest that can make the env",
                        ctx.rules.source("conda"))]


PLANNER = Planner(step, explain, knobs=("conda_prefix",), refusals=refusals)
