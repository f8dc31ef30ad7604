"""Measurements of a healthy H100 as certify.py writes them: SYNTHESIZED (after a captured nvidia-smi), so that
each test can spoil one thing. No number here was measured."""

from __future__ import annotations

from typing import Any

UUID = "GPU-11111111-2222-3333-4444-555555555555"


def ok(**data: Any) -> dict[str, Any]:
    return {"status": "measured", "data": data, "why": None}


def not_run(why: str) -> dict[str, Any]:
    return {"status": "not_run", "why": why}


def h100() -> dict[str, Any]:
    """A whole host with one card, every check measured."""
    smi = {"index": 0, "name": "NVIDIA H100 80GB HBM3", "uuid": UUID, "pci.bus_id": "00000000:00:06.0",
           "memory.total": 81559, "pci.device_id": "0x233010DE", "pci.sub_device_id": "0x16C110DE", "compute_cap": 9.0,
           "vbios_version": "96.00.DA.00.0C", "mig.mode.current": "Disabled", "driver_version": "580.159.04",
           "pcie.link.gen.max": 5, "pcie.link.width.max": 16, "power.default_limit": 700.0, "power.limit": 700.0}
    pci = {"vendor": "0x10de", "device": "0x2330", "present": True, "current_link_width": "16", "max_link_width": "16",
           "current_link_speed": "32.0 GT/s PCIe", "aer_correctable": 0, "aer_nonfatal": 0, "aer_fatal": 0}
    sample = {"temperature.gpu": 61, "power.draw": 690.1, "clocks.current.sm": 1755, "pcie.link.gen.current": 5,
              "pcie.link.width.current": 16, "temperature.gpu.tlimit": 26, "reasons": ["software_power_cap"]}
    settings = {"per_device_train_batch_size": 16, "gradient_accumulation_steps": 1, "bf16": True, "tf32": True,
                "fp16": False, "attn_implementation": "sdpa", "use_cache": False}
    checks = {
        "identity": ok(smi=smi, pci=pci), "other_users": ok(utilization=0, memory_mib=0, processes=[]),
        "torch_build": ok(version="2.8.0+cu128", cuda="12.8", archs=["sm_80", "sm_90"], gpus=1, capability="9.0"),
        "first_kernel": ok(sum=1 << 40, right=True), "precision": ok(fp32=3e-7, tf32=3e-4, half=2.4e-3, dtype="bf16"),
        "matmul": ok(dtype="bf16", rows=[{"size": n, "tflops": t, "low": t, "high": t} for n, t in (
            (1024, 300.0), (4096, 700.0), (8192, 790.0))]),
        "load": ok(seconds=6.0, size=8192, dtype="bf16", tflops=700.0, samples=[sample, sample], pci=pci),
        "bandwidth": ok(rows=[{"mib": m, "gbs": g, "low": g, "high": g} for m, g in ((64, 2500.0), (1024, 2990.0))]),
        "transfer": ok(to_card_gbs=54.0, to_host_gbs=53.0),
        "memory": ok(tested_mib=79000, free_mib=80500, total_mib=81079, wrong_words=0, first_wrong_byte=None),
        "sdpa": ok(dtype="bf16", worst=4e-3, cases=[]), "flash_attention": not_run("flash-attn isn't installed"),
        "gated_delta": not_run("the Qwen of this stack has no linear layers"),
        "training": ok(device="NVIDIA H100 80GB HBM3", steps=20, losses=[[n, 6.0 / n] for n in range(1, 21)],
                       finite=True, settings=settings, activations="bfloat16", fp32_error=3e-4, peak_mib=30000,
                       tokens_per_second=90000.0, tokens_a_sample=1024, save=ok(tensors=336) | {"tensors": 336},
                       resume={"status": "measured", "worst": 0.001}),
        "largest_batch": ok(batch=32, settings_batch=16, tokens_a_sample=1024, tried=[], next_fails=36),
        "ecc": ok(**{"ecc.mode.current": "Enabled", "ecc.errors.uncorrected.volatile.total": 0,
                     "ecc.errors.uncorrected.aggregate.total": 0, "remapped_rows.failure": "No",
                     "remapped_rows.pending": "No", "gpu_recovery_action": None}),
    }
    return {
        "format": 1, "program": "0123456789ab", "host": "h100", "began": 1795000000, "seconds": 95.0, "stack": "guide",
        "system": {"kernel": "6.8.0", "python": "3.10.14", "machine": "x86_64"},
        "driver": ok(version="580.159.04", flavour="open", cuda="13.0", emulated=False),
        "kernel_log": not_run("not readable without root (dmesg: Operation not permitted)"),
        "cards": [{"uuid": UUID, "index": 0, "name": smi["name"], "bus_id": smi["pci.bus_id"], "smi": smi,
                   "checks": checks}],
        "group": {"peers": not_run("one GPU only"), "all_reduce": not_run("one GPU only")},
    }
