"""The real stack on a testbed host: gigabytes from the registry, then five real training steps on its CPU."""

from __future__ import annotations

from typing import Any

import pytest

from .conftest import Lab

pytestmark = [pytest.mark.testbed, pytest.mark.real]


def test_the_real_stack_installs_and_trains(bed: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    from rig.stack import load_stack
    from testbed import HostSpec, demo

    demo.fetch(load_stack("guide"))
    lab = Lab(bed, bed.up([HostSpec("real-01")]), tmp_path_factory.mktemp("real"), stack="guide")
    first = lab.deploy("-y", timeout=3600)
    assert first.code == 0, first.stderr
    made = {check["name"]: check for check in lab.record("real-01", "verify")["checks"]}
    print("\n".join(f"{c['name']:12} {c['status']:8} {c['measured']} {c['why'] or ''}" for c in made.values()))
    assert made["torch"]["measured"] == "2.8.0+cu128" and made["cuda_build"]["measured"] == "12.8"
    assert made["packages"]["status"] == made["import"]["status"] == made["lora"]["status"] == "pass"
    assert made["lora"]["measured"]["device"] == "CPU"
    assert {made[name]["status"] for name in ("gpu", "gpu_arch", "kernel", "bf16_matmul")} == {"not_run"}
    assert lab.record("real-01", "flash_attn")["attention"] == "sdpa"
    second = lab.deploy("-y")
    assert "No changes." in second.stderr and second.results["Grand total"]["success"] == 0
