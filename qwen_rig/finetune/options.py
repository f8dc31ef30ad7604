"""train_qwen.py's options at the door: the same names and types, and what all settings come to. Pure."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from qwen_rig.errors import RigError
from qwen_rig.host import train_qwen as _train_qwen

train_qwen: Any = _train_qwen  # written for a host's Python, without types

OURS = ("output_dir", "dataset_name")  # the run's folder, and what is sent there
# Those that may change between two beginnings of one run: what it takes, never what it learns from.
AGAIN = ("per_device_train_batch_size", "gradient_accumulation_steps", "gradient_checkpointing", "save_steps",
         "logging_steps", "eval_steps", "num_train_epochs", "max_steps", "attn_implementation")


def declare(parser: argparse.ArgumentParser, names: Sequence[str] = tuple(train_qwen.DEFAULTS)) -> None:
    """Declare these options of train_qwen.py's, but for its output folder."""
    group = parser.add_argument_group("train_qwen.py's options, with TRL's names")
    for name in names:
        if name == "output_dir":
            continue
        kind: Any = str
        more: dict[str, Any] = {}
        if name in train_qwen.WHOLE:
            kind = int
        elif name in train_qwen.FRACTIONS:
            kind = float
        elif name in train_qwen.FLAGS:
            kind, more = train_qwen.truth, {"nargs": "?", "const": True}
        elif name == "report_to":
            more = {"choices": train_qwen.REPORTS}
        group.add_argument(*dict.fromkeys((f"--{name}", f"--{name.replace('_', '-')}")), dest=name, type=kind,
                           default=None, metavar=name.rpartition("_")[2].upper(),
                           help=f"default: {train_qwen.DEFAULTS[name]}", **more)


def given(options: argparse.Namespace) -> dict[str, Any]:
    """What the command line says of them. Raises RigError for what train_qwen.py would refuse."""
    found = {name: value for name in train_qwen.DEFAULTS if (value := getattr(options, name, None)) is not None}
    if said := train_qwen.wrong(found):
        what, _, remedy = said.partition(": ")
        raise RigError(what, "", remedy)
    for name, text in found.items():
        if isinstance(text, str) and (not text or not text.isprintable() or len(text) > 1000):
            raise RigError(f"--{name} can't be {text[:60]!r}", "", "a text without control characters")
    return found


def settled(given: Mapping[str, Any], made: Mapping[str, Any]) -> dict[str, Any]:
    """All settings as far as they are known here: the command line over the host's training.json over the defaults. The
    user's own file there stands between the two; the host tells the result (settings.json)."""
    return {**train_qwen.DEFAULTS, **typed(made), **given}


def typed(found: Mapping[str, Any]) -> dict[str, Any]:
    """Those of a host's settings that are known, each of its type and in bounds; None where it is left open."""
    return {name: value for name, value in found.items() if name in train_qwen.DEFAULTS and _fits(name, value)}


def _fits(name: str, value: Any) -> bool:
    if value is None:
        return train_qwen.DEFAULTS[name] is None
    if name in train_qwen.FLAGS:
        return isinstance(value, bool)
    if name in train_qwen.WHOLE:
        return type(value) is int and abs(value) < 10 ** 9
    if name in train_qwen.FRACTIONS:
        return type(value) in (int, float) and abs(value) < 10 ** 9
    return isinstance(value, str) and len(value) <= 1000


def words(given: Mapping[str, Any]) -> list[str]:
    """The same as words of train_qwen.py's command line."""
    return [f"--{name}={str(value).lower() if isinstance(value, bool) else value}" for name, value in given.items()
            if name != "output_dir"]


def method(settings: Mapping[str, Any]) -> str:
    """lora, qlora or full."""
    if not settings.get("use_peft", True):
        return "full"
    return "qlora" if settings.get("load_in_4bit") else "lora"


def smaller(settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """The next smaller settings after a card's memory was out, the effective batch the same; None where there are none:
    half the batch, then checkpointing, then 4 bits, then half the length."""
    batch, steps = settings.get("per_device_train_batch_size") or 1, settings.get("gradient_accumulation_steps") or 1
    if batch > 1:
        half = batch // 2
        return {"per_device_train_batch_size": half, "gradient_accumulation_steps": -(-batch * steps // half)}
    if not settings.get("gradient_checkpointing"):
        return {"gradient_checkpointing": True}
    if settings.get("use_peft", True) and not settings.get("load_in_4bit"):
        return {"load_in_4bit": True}
    length = settings.get("max_length") or 0
    return {"max_length": length // 2} if length >= 256 else None
