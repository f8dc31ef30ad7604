"""A model brought into HF_HOME beforehand, where the knob prefetch_model names one. Pure."""

from __future__ import annotations

from typing import Any

from qwen_rig import fits
from qwen_rig.deploy.env.plan import Build, envs_dir, holder, records
from qwen_rig.plan.context import Context, gib
from qwen_rig.plan.model import Action, Refusal, Step
from qwen_rig.plan.place import disk_at, hf_home

MARGIN_MIB = 1024  # what is left free on that disk: checkpoints and caches need some


def home(ctx: Context) -> str:
    """HF_HOME as the plan knows it; a user's own HF_HOME, set on the host, is only met there."""
    return hf_home(ctx) or f"{ctx.machine.user.home}/.cache/huggingface"


def size_mib(name: str) -> int | None:
    """A model's weights in bfloat16 as qwen_rig/data/models.yml counts them; None for one that isn't there."""
    model = fits.models().get(name)
    return round((model.linear + model.other) * 2 / (1 << 20)) if model else None


def spec(ctx: Context, endpoint: str) -> dict[str, Any]:
    """What qwen_rig/host/prefetch.py is told."""
    return {"model": ctx.knobs.prefetch_model, "endpoint": endpoint, "home": hf_home(ctx),
            "files": list(fits.files_to_fetch()), "margin_mib": MARGIN_MIB}


def steps(ctx: Context, env_changes: bool) -> list[Step]:
    """One step where a model is wanted; none elsewhere, so that no plan speaks of what nobody asked for."""
    return [step(ctx, env_changes)] if ctx.knobs.prefetch_model else []


def step(ctx: Context, env_changes: bool) -> Step:
    """What is to be done about the wanted model."""
    name, title = ctx.knobs.prefetch_model, "Model"
    if name is None:
        return Step("prefetch", title, "-", "-", Action.NA, "prefetch_model=None: none is wanted")
    if ctx.knobs.bundle:
        return Step("prefetch", title, "-", name, Action.NA, "a bundle holds no models: copy it to HF_HOME there")
    made, size = records(ctx).prefetch, size_mib(name)
    generation = holder(ctx)
    gone = generation is not None and (generation.beside is None or generation.beside.snapshot != "whole")
    if made and made.model == name and not gone and not env_changes:
        return Step("prefetch", title, name, name, Action.NONE, f"in {made.home}, commit {made.commit[:12]}")
    has = (made.model if made else "") or "none"
    why = (f"{has} is no longer whole there" if has == name and gone else "prefetch_model") + f"; to {home(ctx)}"
    return Step("prefetch", title, has, name, Action.ADD, why, bytes=size << 20 if size else None,
                known_after="env" if env_changes else "")


def refusals(ctx: Context, steps: list[Step]) -> list[Refusal]:
    """Too little disk for the model, and for the env where that goes to the same disk."""
    step = next((step for step in steps if step.component == "prefetch"), None)
    if step is None or not step.action.changes or not (size := size_mib(step.wanted)):
        return []
    disk, need = disk_at(ctx, home(ctx)), size + MARGIN_MIB
    builds = any(isinstance(s.payload, Build) for s in steps)
    if builds and disk == disk_at(ctx, envs_dir(ctx)):
        need += ctx.stack.disk_mib
    if disk is None or disk.free_mib >= need:
        return []
    return [Refusal(f"{disk.mount} has {gib(disk.free_mib)} free, and {step.wanted} with what else comes there "
                    f"takes {gib(need)}",
                    "set data_dir to a folder on a bigger disk, or take a smaller prefetch_model")]
