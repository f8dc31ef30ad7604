"""The real stacks on a testbed host: gigabytes from the registry, installed by uv and by pip from one lock, then five
real training steps on the host's CPU: Qwen2 with the guide's stack, Qwen3 with its own.

Real: the packages, the installers, the training. Emulated: the GPU and NVIDIA's packages. It needs some 45 GB of disk.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from .conftest import Lab

pytestmark = [pytest.mark.testbed, pytest.mark.real]
HOST = "real-01"
ENVS = "/root/miniforge3/envs"


@dataclass
class Real:
    """A host with one real stack, by the installer that is the default."""

    lab: Lab
    stack: str
    stderr: str


@pytest.fixture(scope="module", params=["guide", "qwen3"])
def real(request: pytest.FixtureRequest, bed: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Real]:
    from rig.stack import load_stack
    from testbed import HostSpec, demo

    demo.fetch(load_stack(request.param))
    lab = Lab(bed, bed.up([HostSpec(HOST)]), tmp_path_factory.mktemp("real"), stack=request.param)
    first = lab.deploy("-y", timeout=3600)
    assert first.code == 0, first.stderr
    yield Real(lab, request.param, first.stderr)
    bed.down()  # an env and its downloads take some 11 GB


WANTED = {"guide": ("2.8.0+cu128", "Qwen2"), "qwen3": ("2.9.1+cu128", "Qwen3")}


def test_the_real_stack_installs_and_trains_its_qwen(real: Real) -> None:
    made = {check["name"]: check for check in real.lab.record(HOST, "verify")["checks"]}
    print(f"\nstack {real.stack}")
    print("\n".join(f"{c['name']:12} {c['status']:8} {c['measured']} {c['why'] or ''}" for c in made.values()))
    torch, model = WANTED[real.stack]
    assert made["torch"]["measured"] == torch and made["cuda_build"]["measured"] == "12.8"
    assert made["packages"]["status"] == made["import"]["status"] == made["lora"]["status"] == "pass"
    trained = made["lora"]["measured"]
    assert (trained["device"], trained["model"]) == ("CPU", model)
    assert len(trained["losses"]) == 5 and trained["losses"][-1] < trained["losses"][0]
    assert {made[name]["status"] for name in ("gpu", "gpu_arch", "kernel", "bf16_matmul")} == {"not_run"}
    assert real.lab.record(HOST, "flash_attn")["attention"] == "sdpa"
    second = real.lab.deploy("-y")
    assert "No changes." in second.stderr and second.results["Grand total"]["success"] == 0


def test_uv_and_pip_install_the_same_set_from_the_lock(real: Real) -> None:
    """The same packages in the same versions, and the same code and libraries byte by byte."""
    from rig.stack import load_stack
    from testbed import interpreter

    by_pip = real.lab.deploy("-y", "--data", "installer=pip", "--data", "env_name=by-pip", "--data", "verify=never",
                             timeout=3600)
    assert by_pip.code == 0, by_pip.stderr
    told = real.lab.on(HOST, f"cat {ENVS}/qwen-train/lib/python3*/site-packages/torch-*.dist-info/INSTALLER "
                             f"{ENVS}/by-pip/lib/python3*/site-packages/torch-*.dist-info/INSTALLER").split()
    assert told == ["uv", "pip"], "each by its own"
    sets = [real.lab.installed(HOST, env) for env in ("qwen-train", "by-pip")]
    assert sets[0] == sets[1], sorted(sets[0] ^ sets[1])[:20]
    names = {line.removesuffix(".dist-info").rpartition("-")[0].lower().replace("_", "-").replace(".", "-")
             for line in sets[0] if line.endswith(".dist-info")}
    wanted = load_stack(real.stack).requirements(interpreter.choose().minor)
    assert set(wanted) <= names and names - set(wanted) <= {"pip", "setuptools", "wheel"}, names ^ set(wanted)
    print(f"\nstack {real.stack}: {len(wanted)} packages, {len(sets[0])} entries the same by uv and by pip")
