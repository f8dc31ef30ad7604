"""Whether a host can take a run: its env, the model on the card, room on the disk, a GPU that nobody uses. Pure."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Any

from qwen_rig import fits, strictjson
from qwen_rig.catalog import models
from qwen_rig.catalog.stack import Stack, known_stacks, load_stack
from qwen_rig.errors import RigError
from qwen_rig.finetune import options
from qwen_rig.finetune.data import Data
from qwen_rig.finetune.record import NAME
from qwen_rig.frozen import frozen
from qwen_rig.plan.context import Context, gib
from qwen_rig.plan.env import records
from qwen_rig.plan.place import data_folder, disk_at

KEPT = 4  # checkpoints that lie there at most: KEEP of host/train_files.py, and the one that is written
MIB = 1 << 20


@frozen
class Busy:
    """Who says that a run of theirs has the GPUs: the file's owner, by uid and name, and that user's own word."""

    uid: int
    user: str
    run: str = ""
    step: int | None = None
    of: int | None = None

    def __str__(self) -> str:
        how = f", step {self.step} of {self.of}" if self.step is not None and self.of else ""
        return f"user {self.user}{f', run {self.run}' if self.run else ''}{how}"


def busy(output: str) -> list[Busy]:
    """What host/busy_look.sh printed; each field of a user's own word counts where it is of its type."""
    found = []
    for line in output.splitlines()[:64]:
        uid, _, rest = line.partition(" ")
        user, _, encoded = rest.partition(" ")
        if not uid.isdecimal() or len(uid) > 10 or not user or len(user) > 64 or not user.isprintable():
            continue
        try:
            said = strictjson.mapping(base64.b64decode(encoded, validate=True).decode("utf-8", "replace"), 4000) or {}
        except (binascii.Error, ValueError):
            said = {}
        run, step, of = said.get("run"), said.get("step"), said.get("of")
        found.append(Busy(int(uid), user, run if isinstance(run, str) and NAME.fullmatch(run) else "",
                          *(n if type(n) is int and 0 <= n < 10 ** 9 else None for n in (step, of))))
    return found


def root(ctx: Context) -> str:
    """Our folder on that host for runs and data: on the data disk where one is used, else in the home."""
    return data_folder(ctx) or f"{ctx.machine.user.home.rstrip('/')}/qwen-rig"


def stack(ctx: Context) -> Stack:
    """The stack that the env there was built of, by its own record: a training is not asked for the knobs that `apply`
    had (`--data model=…`)."""
    made = records(ctx).env
    return load_stack(made.stack) if made and made.stack in known_stacks() else ctx.stack


def settings(ctx: Context, given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings as far as they are known here. Raises RigError where the host has no env, or no model is named."""
    made = records(ctx).training
    if ctx.state.env is None or made is None:
        name = str(given.get("model_name_or_path") or "")
        own = not name or name.startswith(("/", "~", "."))
        raise RigError("the host has no env to train in", "",
                       f"qwen-rig apply --limit {ctx.host}" + ("" if own else f" --data model={name}"))
    found = options.settled(given, made.raw)
    if not found["model_name_or_path"]:
        raise RigError("no model was given", ctx.host,
                       f"--model_name_or_path NAME; `qwen-rig fits {ctx.host}` tells which fit")
    return found


def refuse(ctx: Context, settings: Mapping[str, Any], data: Data, others: Sequence[Busy]) -> list[str]:
    """Raises RigError for the first reason why the run can't be; else what couldn't be looked at, as caveats."""
    _gpu_free(ctx, others)
    name = settings["model_name_or_path"]
    if name.startswith(("/", "~", ".")):
        _disk(ctx, data, 0, 0)
        return [f"{name} is a folder there: whether it fits wasn't looked at"]
    model = models.find(name, "--model_name_or_path")
    if (of := stack(ctx)).trains and model.family not in of.trains:
        raise RigError(f"stack {of.name} can't train {model.name}: its transformers don't know {model.family}",
                       "", f"qwen-rig apply --limit {ctx.host} --data model={model.name}")
    method = options.method(settings)
    said = _fitting(ctx, model, method, settings)
    trained = model.parameters if method == "full" else model.adapter_of(settings["lora_r"])
    _disk(ctx, data, model.parameters * 2, trained * 12 * KEPT)
    return said


def _gpu_free(ctx: Context, others: Sequence[Busy]) -> None:
    if ctx.knobs.allow_busy_gpu:
        return
    remedy = "wait for it, or --data allow_busy_gpu=true to share the card"
    if others:
        raise RigError(f"the GPU is busy: {'; '.join(map(str, others))}", "", remedy)
    if ctx.machine.gpu_users:
        raise RigError(f"the GPU is busy: {', '.join(map(str, ctx.machine.gpu_users))}", "", remedy)


def _fitting(ctx: Context, model: models.Model, method: str, settings: Mapping[str, Any]) -> list[str]:
    """Raises RigError where the batch doesn't fit; a caveat where the card's memory isn't known."""
    cards = [gpu for gpu in ctx.fit if gpu.memory_mib and not gpu.mig]
    if not cards:
        return ["no card's memory is known there: whether the model fits wasn't looked at"]
    smallest = min(gpu.memory_mib or 0 for gpu in cards)
    usable = smallest * models.costs()["usable"] * (1 if each_card(ctx, settings) else len(cards))
    batch, length = settings["per_device_train_batch_size"] or 1, settings["max_length"]
    checkpointing, rank = bool(settings["gradient_checkpointing"]), settings["lora_r"]
    need = fits.need(model, method, batch, length, checkpointing, rank).total
    if need <= usable:
        return []
    where = f"{model.name} by {method} takes {gib(need)} with batch {batch} of {length} tokens, and " \
        f"{gib(usable)} can be used"
    for other in dict.fromkeys((method, "qlora")):
        if (found := fits.fit(model, usable / models.costs()["usable"], other, length, rank)) is None:
            continue
        steps = max(1, batch * (settings["gradient_accumulation_steps"] or 1) // found.batch)
        less = {"per_device_train_batch_size": found.batch, "gradient_accumulation_steps": steps,
                **({"gradient_checkpointing": True} if found.checkpointing else {}),
                **({"load_in_4bit": True, "use_peft": True} if other != method else {})}
        raise RigError(where, ctx.host, " ".join(options.words(less)))
    raise RigError(where, ctx.host, f"a smaller model or --max_length: qwen-rig fits {ctx.host}")


def each_card(ctx: Context, settings: Mapping[str, Any]) -> bool:
    """Whether each card gets a process of its own, with the whole model; else one process spreads it over all."""
    cards = [gpu.memory_mib or 0 for gpu in ctx.fit]
    name = settings["model_name_or_path"]
    if len(cards) < 2 or any(gpu.mig for gpu in ctx.fit):
        return False
    if name.startswith(("/", "~", ".")):
        return True
    return fits.fit(models.find(name, ""), min(cards), options.method(settings), settings["max_length"],
                    settings["lora_r"]) is not None


def _disk(ctx: Context, data: Data, model: float, checkpoints: float) -> None:
    """Raises RigError where a disk lacks the room for data, model and checkpoints."""
    disk = disk_at(ctx, root(ctx))
    if disk is None:
        return
    need = (data.bytes + model + checkpoints) / MIB
    if disk.free_mib < need:
        raise RigError(f"{disk.mount} has {gib(disk.free_mib)} free, and the run takes {gib(need)}: model "
                       f"{gib(model / MIB)}, {KEPT} checkpoints {gib(checkpoints / MIB)}, data {gib(data.bytes / MIB)}",
                       "", "make room there, or name another disk: --data data_dir=FOLDER")

