"""training.json: the guide's training settings, scaled to the card that is really there. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml
from packaging.version import Version

from qwen_rig import fits
from qwen_rig.catalog.models import Model
from qwen_rig.catalog.rules import load_rules
from qwen_rig.frozen import frozen


@frozen
class LargestBatch:
    """What a card's certificate says of the largest batch: `batch` samples of our half-billion Qwen with LoRA go
    through, on the card `uuid`, measured on `date` (ISO 8601)."""

    batch: int
    uuid: str
    date: str


def training_settings(memory_mib: int | None, compute_capability: str | None, attention: str = "sdpa",
                      gpu_name: str | None = None, largest: LargestBatch | None = None, model: Model | None = None,
                      cards: int = 1) -> dict[str, Any]:
    """The settings as training.json holds them; the keys are those of TrainingArguments and from_pretrained.

    `memory_mib` is the smallest card's (device_map "auto" spreads the model over all, in one process, so the number of
    cards doesn't scale the batch); `attention` is as transformers names it. Without a known compute capability
    nothing but full precision is safe to promise. `largest`: what the weakest card's certificate measured; the batch is
    never above it, and the effective batch stays the guide's. `batch_source` says which of the two it is. `model`: the
    batch, checkpointing and 4 bits are those by which that one fits (qwen_rig/fits.py), over `cards` of them where it
    fits no single one.
    """
    rules = load_rules()
    cc = Version(compute_capability) if compute_capability else None
    bf16 = cc is not None and cc >= rules.bf16_from
    fp16 = cc is not None and not bf16
    per_device, accumulation = rules.batch_size(memory_mib)
    if largest and largest.batch < per_device:
        per_device = max(n for n in range(1, per_device + 1) if rules.effective_batch % n == 0
                         and n <= max(1, largest.batch))
        accumulation = rules.effective_batch // per_device
    name = gpu_name or "an unknown GPU"
    made = {
        "for": f"{name}, {memory_mib} MiB" if memory_mib else f"{name}, memory not known",
        "per_device_train_batch_size": per_device,
        "gradient_accumulation_steps": accumulation,
        "batch_source": _source(largest),
        "bf16": bf16,
        "tf32": bf16,
        "fp16": fp16,
        "torch_dtype": "bfloat16" if bf16 else "float16" if fp16 else "float32",
        "attn_implementation": attention if bf16 or attention == "sdpa" else "sdpa",
        "use_cache": False,
        "device_map": "auto",
        "trust_remote_code": False,  # none of the models needs it
    }
    return made if model is None else {**made, **_of_model(model, memory_mib, largest, cards)}


def fitting(model: Model, memory_mib: float, largest: LargestBatch | None = None,
            cards: int = 1) -> tuple[str, int, fits.Fit] | None:
    """(method, cards that it takes, how) by which a model trains: LoRA rather than QLoRA, one card rather than all
    (over which device_map "auto" spreads it). None where nothing does."""
    measured = fits.measured(memory_mib, largest.batch) if largest else 1.0
    for count in dict.fromkeys((1, max(1, cards))):
        for method in ("lora", "qlora"):
            if found := fits.fit(model, count * memory_mib, method, measured=measured):
                return method, count, found
    return None


def _of_model(model: Model, memory_mib: int | None, largest: LargestBatch | None, cards: int) -> dict[str, Any]:
    """What train_qwen.py is told of one model; the most careful settings where the card's memory isn't known."""
    effective = load_rules().effective_batch
    found = fitting(model, memory_mib, largest, cards) if memory_mib else None
    method, count, how = found or ("qlora", 1, None)
    batch, why = how.batch if how else 1, "the card's memory isn't known"
    if how and memory_mib:
        over = f" over {count} cards" if count > 1 else ""
        why = f"{round(how.need.total)} of {count * memory_mib} MiB{over}, by rig fits"
    source = _source(largest) if largest else {"measured": False, "why": why}
    return {"model_name_or_path": model.name, "load_in_4bit": method == "qlora", "max_length": fits.LENGTH,
            "gradient_checkpointing": how.checkpointing if how else True, "per_device_train_batch_size": batch,
            "gradient_accumulation_steps": effective // batch, "batch_source": source}


def _source(largest: LargestBatch | None) -> dict[str, Any]:
    if largest is None:
        # It is compared with training.json on hosts: with `certify` in it, each of them would change.
        return {"measured": False, "why": "the guide's, by the card's memory; rig verify measures the largest"}
    return {"measured": True, "largest": largest.batch, "uuid": largest.uuid, "date": largest.date}


def accelerate_text(settings: Mapping[str, Any]) -> str:
    """accelerate.yaml as it lies beside training.json."""
    return str(yaml.safe_dump(settings["accelerate"]))


def accelerate_config(settings: Mapping[str, Any], cards: int, machines: int = 1, rank: int = 0,
                      address: str | None = None, port: int | None = None) -> dict[str, Any]:
    """accelerate's default_config.yaml for these settings: one process a card, on each of `machines`.

    `cards` is how many this machine has (all of one launch must have as many), `address` and `port` those of the
    machine of rank 0. Keys and words: accelerate 0.34 to 1.12, commands/config/config_args.py, ClusterConfig.
    """
    processes = max(1, cards) * machines
    return {
        "compute_environment": "LOCAL_MACHINE",
        "debug": False,
        "distributed_type": "NO" if processes == 1 else "MULTI_GPU",
        "downcast_bf16": "no",
        "enable_cpu_affinity": False,
        "gpu_ids": "all",
        "machine_rank": rank,
        **({"main_process_ip": address, "main_process_port": port} if machines > 1 else {}),
        "main_training_function": "main",
        "mixed_precision": "bf16" if settings["bf16"] else "fp16" if settings["fp16"] else "no",
        "num_machines": machines,
        "num_processes": processes,
        "rdzv_backend": "static",
        "same_network": True,
        "use_cpu": False,
    }
