"""A model brought into HF_HOME beforehand, where the knob prefetch_model names one. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qwen_rig.catalog import models
from qwen_rig.errors import RigError
from qwen_rig.plan.context import Context, gib
from qwen_rig.plan.env import envs_dir, holder, records
from qwen_rig.plan.model import Action, Refusal, Step
from qwen_rig.plan.place import disk_at, hf_home
from qwen_rig.plan.planner import OURS, Parts, Planner, Rule, fact, new_env

TITLE = "Model"
MARGIN_MIB = 1024  # what is left free on that disk: checkpoints and caches need some


def home(ctx: Context) -> str:
    """HF_HOME as the plan knows it; a user's own HF_HOME, set on the host, is only met there."""
    return hf_home(ctx) or f"{ctx.machine.user.home}/.cache/huggingface"


def size_mib(name: str) -> int | None:
    """A model's weights in bfloat16 as qwen_rig/data/models.yml counts them; None for one that isn't there."""
    try:
        return round(models.find(name, "prefetch_model").parameters * 2 / (1 << 20))
    except RigError:
        return None


def spec(ctx: Context, endpoint: str) -> dict[str, Any]:
    """What qwen_rig/host/prefetch.py is told."""
    return {"model": ctx.knobs.prefetch_model, "endpoint": endpoint, "home": hf_home(ctx),
            "files": list(models.files_to_fetch()), "margin_mib": MARGIN_MIB}


def wanted(ctx: Context, env_changes: bool = False) -> Step:
    """What is to be done about the wanted model."""
    name, title = ctx.knobs.prefetch_model, TITLE
    if name is None:
        return Step(title, "-", "-", Action.NA, "prefetch_model=None and no model: none is wanted")
    if ctx.knobs.bundle:
        return Step(title, "-", name, Action.NA, "a bundle holds no models: copy it to HF_HOME there")
    made, size = records(ctx).prefetch, size_mib(name)
    generation = holder(ctx)
    gone = generation is not None and (generation.beside is None or generation.beside.snapshot != "whole")
    if made and made.model == name and not gone and not env_changes:
        return Step(title, name, name, Action.NONE, f"in {made.home}, commit {made.commit[:12]}", won=name)
    has = (made.model if made else "") or "none"
    why = (f"{has} is no longer whole there" if has == name and gone else "prefetch_model") + f"; to {home(ctx)}"
    return Step(title, has, name, Action.ADD, why, bytes=size << 20 if size else None,
                known_after="env" if env_changes else "", fetches=("huggingface",))


def step(ctx: Context, before: Sequence[Step]) -> Step | None:
    """None where no model is wanted, so that no plan speaks of what nobody asked for."""
    return wanted(ctx, new_env(before)) if ctx.knobs.prefetch_model else None


def refusals(ctx: Context, steps: Sequence[Step]) -> list[Refusal]:
    """Too little disk for the model, and for the env where that goes to the same disk."""
    step = next((step for step in steps if step.title == TITLE), None)
    if step is None or not step.action.changes or not (size := size_mib(step.wanted)):
        return []
    disk, need = disk_at(ctx, home(ctx)), size + MARGIN_MIB
    builds = new_env(steps)
    if builds and disk == disk_at(ctx, envs_dir(ctx)):
        need += ctx.stack.disk_mib
    if disk is None or disk.free_mib >= need:
        return []
    return [Refusal(f"{disk.mount} has {gib(disk.free_mib)} free, and {step.wanted} with what else comes there "
                    f"takes {gib(need)}",
                    "set data_dir to a folder on a bigger disk, or take a smaller prefetch_model")]


def explain(ctx: Context) -> Parts:
    """What was fetched before, and where a model goes."""
    made, size = records(ctx).prefetch, size_mib(ctx.knobs.prefetch_model or "")
    return [fact("prefetched before", made.model if made else None, "probe.HostState (.rig/prefetch.json)"),
            fact("goes to", home(ctx), "probe.HostState")], [
        Rule(f"its weights take {size} MiB" if size else "its size is only known from the hub's listing",
             "qwen_rig/data/models.yml"),
        Rule("skipped where every file of its snapshot is there", OURS)]


PLANNER = Planner(step, explain, knobs=("prefetch_model",), refusals=refusals, unasked=wanted, needs=("env",))
