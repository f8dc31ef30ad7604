"""training.json: the guide's training settings, scaled to the card that is really there. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from packaging.version import Version

from .rules import load_rules


def training_settings(memory_mib: int | None, compute_capability: str | None, attention: str = "sdpa",
                      gpu_name: str | None = None) -> dict[str, Any]:
    """The settings as training.json holds them; the keys are those of TrainingArguments and from_pretrained.

    `memory_mib` is the smallest card's (device_map "auto" spreads the model over all, in one process, so the number of
    cards doesn't scale the batch); `attention` is "flash_attention_2" or "sdpa". Without a known compute capability
    nothing but full precision is safe to promise.
    """
    rules = load_rules()
    cc = Version(compute_capability) if compute_capability else None
    bf16 = cc is not None and cc >= rules.bf16_from
    fp16 = cc is not None and not bf16
    per_device, accumulation = rules.batch_size(memory_mib)
    name = gpu_name or "an unknown GPU"
    return {
        "for": f"{name}, {memory_mib} MiB" if memory_mib else f"{name}, memory not known",
        "per_device_train_batch_size": per_device,
        "gradient_accumulation_steps": accumulation,
        "bf16": bf16,
        "tf32": bf16,
        "fp16": fp16,
        "torch_dtype": "bfloat16" if bf16 else "float16" if fp16 else "float32",
        "attn_implementation": attention if bf16 or attention == "sdpa" else "sdpa",
        "use_cache": False,
        "device_map": "auto",
        "trust_remote_code": True,
    }


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
