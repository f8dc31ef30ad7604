"""How a run is told to people: one line of how far it is, the table of runs, the card of memory that was out. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from qwen_rig.finetune import options
from qwen_rig.finetune.record import Record
from qwen_rig.units import span

FORM = 1  # of the documents of training, docs/training.schema.json


def at(row: Mapping[str, Any]) -> str:
    """`loss 1.234 · 5,120 tokens/s · 11.2 of 24.0 GiB · ~16 min left` of one point."""
    said = [f"loss {row['loss']:.3f}"] if "loss" in row else []
    if "loss" not in row and "eval_loss" in row:
        said.append(f"eval loss {row['eval_loss']:.3f}")
    if row.get("tokens_s"):
        said.append(f"{row['tokens_s']:,.0f} tokens/s")
    if "memory_mib" in row:
        of = f" of {row['memory_of'] / 1024:.1f}" if row.get("memory_of") else ""
        said.append(f"{row['memory_mib'] / 1024:.1f}{of} GiB")
    if row.get("left_s"):
        said.append(f"~{span(row['left_s'])} left")
    return " · ".join(said)


def step(row: Mapping[str, Any]) -> str:
    """`step 120 of 400`; "" of no point."""
    return f"step {row['step']} of {row['of']}" if row.get("of") else f"step {row['step']}" if "step" in row else ""


def line(row: Mapping[str, Any]) -> str:
    """Both."""
    return " · ".join(filter(None, (step(row), at(row))))


def again(settings: Mapping[str, Any], name: str) -> str:
    """What to do where a card's memory was out."""
    less = options.smaller(settings)
    if less is None:
        return "these are the smallest settings: take a smaller model or a larger card; `qwen-rig fits` tells which"
    if set(less) <= set(options.AGAIN):
        return shlex.join(["qwen-rig", "runs", "resume", name, *options.words(less)])
    return f"begin another run with {' '.join(options.words(less))}; `qwen-rig fits` tells what fits"


def row(record: Record) -> tuple[str, str, str, str]:
    """(name, host, state, how far) of the table of runs."""
    return record.name, ", ".join(record.hosts), record.state, line(record.last)


def shown(record: Record) -> dict[str, Any]:
    """A run as --json has it (docs/training.schema.json), without its curve."""
    return {"form": FORM, "name": record.name, "host": record.host, "hosts": list(record.hosts),
            "state": record.state, "began": record.began,
            "seen": record.seen, "model": record.model, "revision": record.revision, "seed": record.seed,
            "data": dict(record.data), "env": dict(record.env), "settings": dict(record.settings),
            "certificates": list(record.certificates), "last": dict(record.last), "result": dict(record.result),
            "evaluation": dict(record.evaluation)}
