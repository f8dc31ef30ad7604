"""training.json: the guide's training settings, scaled to the card that is really there. Pure."""

from __future__ import annotations

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
