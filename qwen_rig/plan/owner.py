"""What is passed over on a host because others than root and we could have put it there. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from qwen_rig.facts.state import Refused
from qwen_rig.plan.context import Context
from qwen_rig.plan.env import conda, envs_dir
from qwen_rig.plan.model import Refusal, Step
from qwen_rig.plan.place import PLACE, disk_at, in_memory, usable
from qwen_rig.plan.planner import new_env

_WORDS = {"conda": "the conda at", "env": "the env at", "script": "the proxy script"}


def refusals(ctx: Context, steps: Sequence[Step]) -> list[Refusal]:
    """Where the host must be left alone: what every run depends on is open to others, or what a knob names is, or an
    env that is ours and would be built anew only because of its modes."""
    found = [Refusal(f"{_named(row)} can't be used: {row.why}", _remedy(row)) for row in ctx.state.refused
             if _needed(ctx, row, steps)]
    if not ctx.machine.user.home and new_env(steps):
        found.append(Refusal("its home folder isn't known", "log in and look at $HOME: it must be a path"))
    disk = disk_at(ctx, envs_dir(ctx))
    if new_env(steps) and disk and in_memory(disk):
        other = next((d.mount for d in ctx.machine.disks if usable(d) and d.writable), None)
        found.append(Refusal(f"{envs_dir(ctx)} is in memory ({disk.mount}, {disk.fstype}), which the next boot empties",
                             f"set data_dir to a folder on {other or 'a disk'}"))
    return found


def caveats(ctx: Context, steps: Sequence[Step]) -> list[str]:
    """What is passed over, and another used in its place; said while something is still to be made."""
    return [f"{_named(row)} is not used: {row.why}; {row.remedy}" for row in ctx.state.refused
            if not _needed(ctx, row, steps) and _missed(ctx, row, steps)]


def _named(row: Refused) -> str:
    return f"{_WORDS.get(row.kind, '')} {row.subject}".strip()


def _remedy(row: Refused) -> str:
    knob = {"conda": "conda_prefix", "place": "data_dir", "models": "HF_HOME"}.get(row.kind)
    return f"{row.remedy}{f', or set {knob} to another place' if knob else ''}"


def _needed(ctx: Context, row: Refused, steps: Sequence[Step]) -> bool:
    """Whether this run can't do without it."""
    changes = [step.component for step in steps if step.action.changes]
    match row.kind:
        case "own" | "root":
            return bool(changes)
        case "env":
            ours = row.subject.startswith(f"{ctx.machine.user.home}/") or f"/{PLACE}/envs/" in row.subject
            return ours and not row.foreign and bool(changes)
        case "models":
            return "prefetch" in changes
        case "conda":
            return row.subject == (ctx.knobs.conda_prefix or "").rstrip("/") and bool(changes)
        case "place":
            asked = (f"{(ctx.knobs.data_dir or '').rstrip('/')}/qwen-rig", (ctx.knobs.conda_prefix or "").rstrip("/"))
            return row.subject in asked and bool(changes)
    return False


def _missed(ctx: Context, row: Refused, steps: Sequence[Step]) -> bool:
    """Whether somebody would look for it in this plan."""
    if row.kind == "place":
        disk, home = disk_at(ctx, row.subject), disk_at(ctx, ctx.machine.user.home)
        need = ctx.stack.disk_mib
        return bool(new_env(steps) and disk and disk.free_mib >= need and home and home.free_mib < need)
    if row.kind == "conda":
        return new_env(steps) or conda(ctx) is None
    if row.kind == "env":  # with its conda, or our folder on a disk, that is said already
        return not any(row.subject.startswith(f"{other.subject}/") for other in ctx.state.refused if other is not row)
    return row.kind in ("own", "root", "script")
