"""training.json for real cards."""

from __future__ import annotations

import json

import pytest

from qwen_rig.training import LargestBatch, accelerate_config, training_settings


@pytest.mark.parametrize(("memory", "cc", "batch", "accumulation", "dtype"), [
    (32607, "12.0", 8, 2, "bfloat16"),  # a 5090 calls itself 32607 MiB, and that is 32 GB
    (24564, "8.9", 4, 4, "bfloat16"),
    (23028, "8.6", 4, 4, "bfloat16"),  # A10, with ECC
    (16303, "12.0", 2, 8, "bfloat16"),
    (15360, "7.5", 2, 8, "float16"),
    (12282, "8.9", 1, 16, "bfloat16"),
    (46068, "8.9", 8, 2, "bfloat16"),
    (81559, "9.0", 16, 1, "bfloat16"),
    (143771, "9.0", 16, 1, "bfloat16"),
    (None, "12.0", 1, 16, "bfloat16"),
    (32607, None, 8, 2, "float32"),
])
def test_batch_and_precision(memory: int | None, cc: str | None, batch: int, accumulation: int, dtype: str) -> None:
    made = training_settings(memory, cc)
    assert (made["per_device_train_batch_size"], made["gradient_accumulation_steps"]) == (batch, accumulation)
    assert batch * accumulation == 16
    assert made["torch_dtype"] == dtype
    assert (made["bf16"], made["tf32"], made["fp16"]) == (dtype == "bfloat16", dtype == "bfloat16", dtype == "float16")
    assert made["use_cache"] is False
    assert json.loads(json.dumps(made)) == made


@pytest.mark.parametrize(("measured", "batch", "accumulation"), [
    (36, 8, 2), (8, 8, 2), (7, 4, 4), (4, 4, 4), (3, 2, 8), (1, 1, 16), (0, 1, 16)])
def test_a_measured_largest_batch_bounds_the_guides_and_the_effective_one_stays(measured: int, batch: int,
                                                                                accumulation: int) -> None:
    made = training_settings(32607, "12.0", largest=LargestBatch(measured, "GPU-1", "2026-11-25"))
    assert (made["per_device_train_batch_size"], made["gradient_accumulation_steps"]) == (batch, accumulation)
    assert made["batch_source"] == {"measured": True, "largest": measured, "uuid": "GPU-1", "date": "2026-11-25"}
    assert training_settings(32607, "12.0")["batch_source"]["measured"] is False


def test_attention_is_the_one_decided() -> None:
    assert training_settings(32607, "12.0", "flash_attention_2")["attn_implementation"] == "flash_attention_2"
    assert training_settings(32607, "12.0", "sdpa")["attn_implementation"] == "sdpa"
    assert training_settings(15360, "7.5", "flash_attention_2")["attn_implementation"] == "sdpa"  # no bf16, no flash


def test_for_whom() -> None:
    assert training_settings(32607, "12.0", gpu_name="NVIDIA GeForce RTX 5090")["for"] == (
        "NVIDIA GeForce RTX 5090, 32607 MiB")
    assert training_settings(None, None)["for"] == "an unknown GPU, memory not known"


@pytest.mark.parametrize(("cards", "machines", "kind", "processes"), [
    (1, 1, "NO", 1), (4, 1, "MULTI_GPU", 4), (1, 2, "MULTI_GPU", 2), (8, 2, "MULTI_GPU", 16)])
def test_accelerate_starts_a_process_a_card(cards: int, machines: int, kind: str, processes: int) -> None:
    made = accelerate_config(training_settings(32607, "12.0"), cards, machines, 1, "10.0.0.1", 29500)
    assert (made["distributed_type"], made["num_processes"], made["mixed_precision"]) == (kind, processes, "bf16")
    assert ("main_process_ip" in made) == (machines > 1)
    assert accelerate_config(training_settings(15360, "7.5"), 1)["mixed_precision"] == "fp16"
