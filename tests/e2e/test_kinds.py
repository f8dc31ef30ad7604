"""Hosts as people rent them: a container with a small root and a data disk, WSL, a user without root. One command for
all; each gets what its kind allows, and the second run changes nothing. A VM under systemd: test_systemd.py.

Emulated: the GPUs, WSL's marks, the outer host's driver. Real: the full disk, sshd.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from qwen_rig.catalog.stack import DATA

from .conftest import Lab

pytestmark = pytest.mark.testbed
DRIVER = "580.95.05:open"
ROOT_MIB = 2048


def _roomy(folder: Path) -> str:
    """The stand-in stack in a file of the user's own, which says that it takes more than the small root has."""
    table = yaml.safe_load((DATA / "stacks" / "standin.yml").read_text())
    table["disk"]["env_mib"] = ROOT_MIB
    for name in ("standin.lock.txt", "standin.sizes.yml"):
        shutil.copy(DATA / "locks" / name, folder)
    (folder / "roomy.yml").write_text(yaml.safe_dump(table))
    return str(folder / "roomy.yml")


@pytest.fixture(scope="module")
def lab(bed: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    from testbed import HostSpec

    infos = bed.up([
        HostSpec("pod", kind="container", driver=DRIVER, root_mib=ROOT_MIB, data="/workspace"),
        HostSpec("wsl", kind="wsl", driver=DRIVER, user="nosudo", compilers=False),
        HostSpec("oldpod", kind="container", driver="550.90.07:proprietary"),
        HostSpec("rootless", user="nosudo"),
    ])
    folder = tmp_path_factory.mktemp("kinds")
    lab = Lab(bed, infos, folder)
    lab.data["hosts"]["pod"]["stack"] = _roomy(folder)
    lab.write()
    for name in ("pod", "rootless"):
        lab.on(name, "rm -f /usr/bin/sudo /usr/sbin/lsmod /usr/bin/lsmod")
    yield lab
    bed.down()


@pytest.fixture(scope="module")
def first(lab: Lab) -> Any:
    dry = lab.deploy("--dry")
    return dry, lab.deploy("-y")


def _place(lab: Lab, name: str) -> str:
    home = {"pod": "/workspace/qwen-rig", "wsl": "/home/nosudo/miniforge3"}[name]
    return f"{home}/envs/qwen-train"


def test_each_kind_gets_what_it_can_have(lab: Lab, first: Any) -> None:
    _, run = first
    assert run.code == 1, "two of them can't be served"
    assert "✗ pod" not in run.stderr and "✗ wsl" not in run.stderr, run.stderr
    for name in ("pod", "wsl"):
        made = json.loads(lab.on(name, f"cat {_place(lab, name)}/.rig/verification.json"))
        assert made["overall"] in ("pass", "partial"), (name, made)


def test_what_is_not_theirs_is_said_to_be_not_theirs(lab: Lab, first: Any) -> None:
    dry, run = first
    assert "host's driver 580.95.05 serves cu128" in dry.stderr
    flat = " ".join(run.stderr.replace("│", " ").split())
    assert "host's driver 550.90.07 can't serve cu128 on sm_120" in flat and "rent a host with driver ≥ 570" in flat
    assert "nosudo has neither root nor sudo" in flat
    for name in ("pod", "wsl", "oldpod", "rootless"):
        assert not lab.on(name, "dpkg-query -W -f '${Package}\\n' | grep -E '^(nvidia|cuda|linux-headers)' || true")


def test_those_that_cannot_be_served_are_refused_again_and_left_alone(lab: Lab, first: Any) -> None:
    before = {name: lab.fingerprint(name) for name in ("oldpod", "rootless")}
    again = lab.deploy("-y", "--limit", "oldpod", "--limit", "rootless")
    flat = " ".join(again.stderr.replace("│", " ").split())
    assert again.code == 1 and "rent a host with driver ≥ 570" in flat and "has neither root nor sudo" in flat
    assert {name: lab.fingerprint(name) for name in before} == before


def test_without_root_the_env_comes_and_the_rest_says_what_it_needs(lab: Lab, first: Any) -> None:
    dry, _ = first
    plan = " ".join(dry.stderr[dry.stderr.index("wsl  RTX 5090"):].split())
    assert "call gcc while training, but installing needs root and apt" in plan
    assert lab.on("wsl", "find /home/nosudo ! -user nosudo").strip() == ""


def test_a_small_root_is_spared(lab: Lab, first: Any) -> None:
    dry, _ = first
    said = " ".join(dry.stderr.split())
    assert "env, caches and HF_HOME are on /workspace; all else on this container's / may go when it is stopped" in said
    assert "RunPod empties / at a stop and keeps /workspace until the pod is deleted" in said
    assert not lab.on("pod", "ls -d /root/miniforge3 /root/.cache/qwen-rig /root/.cache/uv 2>/dev/null || true")
    assert lab.on("pod", "ls /workspace/qwen-rig").split()
    known = "/workspace/qwen-rig/miniforge3/envs/qwen-train"
    assert lab.on("pod", f"readlink {known}").strip() == _place(lab, "pod"), "conda activate looks there"
    pip = lab.on("pod", "cd /; /workspace/qwen-rig/miniforge3/bin/conda run -n qwen-train pip --version")
    assert pip.startswith("pip ") and lab.on("pod", "cat /root/.conda/environments.txt") == f"{known}\n"
    settings = json.loads(lab.on("pod", f"cat {_place(lab, 'pod')}/.rig/training.json"))
    assert settings["hf_home"] == "/workspace/qwen-rig/huggingface"


def test_the_second_run_changes_nothing(lab: Lab, first: Any) -> None:
    good = ("pod", "wsl")
    counted = {name: lab.bed.execs(name) for name in good}
    second = lab.deploy("-y", "--exclude", "oldpod", "--exclude", "rootless")
    assert second.code == 0 and "No changes." in second.stderr, second.stderr
    assert second.results["Grand total"]["success"] == 0
    assert {lab.bed.execs(name) - counted[name] for name in good} == {1}


def test_the_odd_one_of_six_is_named(bed: Any, lab: Lab, first: Any, tmp_path: Path) -> None:
    """Last here: it takes the other hosts down."""
    from testbed import HostSpec

    infos = bed.up([HostSpec(f"lab-{n:02}", kind="container", driver=DRIVER, lanes=4 if n == 3 else 16)
                    for n in range(1, 7)])
    dry = Lab(bed, infos, tmp_path).deploy("--dry")
    assert dry.code == 0 and "lab-03 differs from the other five in: PCIe width (x4, not x16)" in dry.stderr, dry.stderr
