"""The real stacks on a testbed host: gigabytes from the registry, installed by uv and by pip from one lock, then five
real training steps on the host's CPU: Qwen2 with the guide's stack, Qwen3 with its own.

Real: the packages, the installers, the training. Emulated: the GPU and NVIDIA's packages. It needs some 50 GB of disk.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests import HANG_S

from .conftest import Lab
from .test_door import OUTSIDE

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
    from qwen_rig.catalog.stack import load_stack
    from testbed import HostSpec, demo

    demo.fetch(load_stack(request.param))
    lab = Lab(bed, bed.up([HostSpec(HOST)]), tmp_path_factory.mktemp("real"), stack=request.param)
    first = lab.deploy("-y", timeout=8 * HANG_S)
    assert first.code == 0, first.stderr
    yield Real(lab, request.param, first.stderr)
    bed.down()  # an env and its downloads take some 11 GB


WANTED = {"guide": ("2.8.0+cu128", "Qwen2"), "qwen3": ("2.9.1+cu128", "Qwen3")}


def test_the_real_stack_installs_and_trains_its_qwen(real: Real) -> None:
    made = {check["name"]: check for check in real.lab.record(HOST, "verification")["checks"]}
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


def test_the_certificate_of_an_emulated_card_trains_on_the_cpu_and_says_so(real: Real) -> None:
    """Training, saving and resuming are real there, and told; nothing that takes a GPU is a pass. (The guide's stack
    can't resume: an advisory says so.)"""
    told = real.lab.pyinfra("-y", "deploy/certify.py", timeout=8 * HANG_S)
    assert told.code == 0 and "EMULATED by the testbed" in told.stderr, told.stderr
    (kept,) = (real.lab.folder / "state" / "qwen-rig" / "certificates").glob("GPU-*/*.json")
    made = {check["name"]: check for check in json.loads(kept.read_text())["checks"]}
    print("\n".join(f"{name:16} {c['status']:8} {c['measured']} {c['why'] or ''}" for name, c in made.items()))
    assert {made[name]["status"] for name in ("first_kernel", "matmul", "bandwidth", "largest_batch")} == {"not_run"}
    assert made["training"]["status"] == made["save"]["status"] == "not_run"
    assert made["training"]["measured"].startswith("on the CPU: loss "), made["training"]
    assert made["save"]["measured"] == "on the CPU: 28 tensors the same", made["save"]
    assert ("could not resume" in made["resume"]["measured"]) == (real.stack == "guide"), made["resume"]


def test_uv_and_pip_install_the_same_set_from_the_lock(real: Real) -> None:
    """The same packages in the same versions, and the same code and libraries byte by byte."""
    from qwen_rig.catalog.stack import load_stack
    from testbed import interpreter

    by_pip = real.lab.deploy("-y", "--data", "installer=pip", "--data", "env_name=by-pip", "--data",
                             "verification=never", timeout=8 * HANG_S)
    assert by_pip.code == 0, by_pip.stderr
    told = [real.lab.on(HOST, f"cat {ENVS}/{env}/lib/python3*/site-packages/torch-*.dist-info/INSTALLER").strip()
            for env in ("qwen-train", "by-pip")]
    assert told == ["uv", "pip"], "each by its own"
    sets = [real.lab.installed(HOST, env) for env in ("qwen-train", "by-pip")]
    assert sets[0] == sets[1], sorted(sets[0] ^ sets[1])[:20]
    wanted = load_stack(real.stack).requirements(interpreter.choose().minor)
    absent = {f"{name}-{each.version}" for name, each in wanted.items()} - sets[0]
    assert not absent, absent
    print(f"\nstack {real.stack}: {len(wanted)} packages, {len(sets[0])} entries the same by uv and by pip")
    real.lab.on(HOST, f"rm -rf {ENVS}/by-pip {ENVS}/.by-pip* /root/.cache/pip")


# What a hand leaves that has never heard of a lock: an env of its own, the registry's torch, an old transformers.
MESS = f"""set -e; cd {ENVS} && cp -aL qwen-train mess && rm -rf mess/.rig
rm -rf qwen-train .qwen-train* && mv mess qwen-train
qwen-train/bin/python -m pip install -q --no-deps -i INDEX --trusted-host HUB torch==2.7.1 transformers==4.40.0"""
TREE = f"cd {ENVS}/qwen-train/ && find . -type f ! -name '*.pyc' -printf '%P %s %T@\\n' | sort"


def test_a_careless_torch_is_named_mended_and_brought_back_by_undo(real: Real) -> None:
    from testbed import interpreter, wheels

    if real.stack != "guide":
        pytest.skip("once is enough, with the guide's stack")
    lab = real.lab
    subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:",
                    "--python-version", interpreter.choose().minor, "--platform", "manylinux_2_28_x86_64",
                    "-d", str(wheels.folder()), "torch==2.7.1", "transformers==4.40.0"], check=True)
    index = lab.bed.services().pip_index
    lab.on(HOST, MESS.replace("INDEX", index).replace("HUB", urlsplit(index).netloc))
    mess, outside = lab.on(HOST, TREE), lab.on(HOST, OUTSIDE)
    planned = json.loads(lab.rig("plan", "--json").stdout)["hosts"][0]
    env = next(step for step in planned["steps"] if step["component"] == "env")
    print("\n" + "\n".join(env["problems"]))
    assert env["problems"][0].startswith("torch 2.7.1+cu126 is built for CUDA 12.6, not 12.8, as a plain `pip install "
                                         "torch==2.7.1` brings it; it has no code for sm_120")
    assert {"torch 2.7.1 is older than the lock's 2.8.0",
            "transformers 4.40.0 is older than the lock's 4.46.0"} == set(env["problems"][1:])
    mended = lab.rig("apply", "--yes", timeout=8 * HANG_S)
    assert mended.code == 0, mended.stderr
    made = {check["name"]: check for check in lab.record(HOST, "verification")["checks"]}
    assert made["torch"]["measured"] == WANTED["guide"][0] and made["lora"]["status"] == "pass"
    begun = time.monotonic()
    assert lab.rig("undo", "--yes").code == 0
    print(f"rig undo, with its connection and its plan: {time.monotonic() - begun:.1f} s")
    assert lab.on(HOST, TREE) == mess, "the mess is back"
    assert lab.on(HOST, OUTSIDE) == outside, "and nothing else has changed"
