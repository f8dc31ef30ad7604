"""Where env and caches go, and what is said of a stop. States are synthesized."""

from __future__ import annotations

from typing import Any

import pytest

from qwen_rig.deploy.planning import make_plan
from qwen_rig.plan.env import envs_dir, known_as, prefix
from qwen_rig.plan.place import data_folder, load_stops
from tests.plan.states import RTX5090, bare, context, with_driver


def disks(*mounts: tuple[str, int]) -> list[dict[str, Any]]:
    return [{"mount": mount, "fstype": "ext4", "size_mib": free, "free_mib": free, "writable": True}
            for mount, free in mounts]


def machine(kind: str, *mounts: tuple[str, int], virt: str | None = None) -> Any:
    state = bare(RTX5090, kind=kind, virt=virt, disks=disks(("/", 3_000), *mounts))
    return context(with_driver(state, "580.95.05", "open"))


def test_a_disk_that_a_stop_empties_comes_after_one_that_is_kept() -> None:
    nvme, volume = ("/opt/dlami/nvme", 900_000), ("/data", 100_000)
    assert data_folder(machine("vm", nvme, volume)) == "/data/qwen-rig"
    only = machine("vm", nvme)
    assert data_folder(only) == "/opt/dlami/nvme/qwen-rig"
    assert any("AWS empties when the instance is stopped: env, caches" in said for said in make_plan(only).caveats)
    unlisted = [said for said in make_plan(machine("vm", volume)).caveats if "stop" in said]
    assert len(unlisted) == 1 and "are on /data: where this VM is rented, ask its provider" in unlisted[0]
    assert not [said for said in make_plan(machine("bare_metal", volume)).caveats if "stop" in said]


@pytest.mark.parametrize("mount", ["/mnt", "/mnt/resource"])
def test_azures_temporary_disk_is_one_under_its_hypervisor_alone(mount: str) -> None:
    for virt, folder in (("microsoft", "/data/qwen-rig"), ("kvm", f"{mount}/qwen-rig")):
        both = machine("vm", (mount, 900_000), ("/data", 100_000), virt=virt)
        assert data_folder(both) == folder
    only = machine("vm", (mount, 900_000), virt="microsoft")
    assert [said for said in make_plan(only).caveats if f"on Azure {mount} is the temporary disk" in said]


def test_what_a_providers_stop_does_is_said_by_its_data_disk() -> None:
    for mount, stop in load_stops().items():
        if mount != "/opt/dlami/nvme" and stop.virt is None:
            said = make_plan(machine("container", (mount, 100_000))).caveats
            assert f"are on {mount}" in said[0] and stop.words in said
    unknown = make_plan(machine("container", ("/scratch", 100_000))).caveats
    assert "are on /scratch" in unknown[0] and len(unknown) == 2  # and that Python is not pinned


def test_a_conda_that_is_there_is_adopted_and_the_env_goes_to_the_data_disk() -> None:
    """AutoDL's images bring /root/miniconda3."""
    state = with_driver(bare(RTX5090, kind="container", disks=disks(("/", 20_000), ("/root/autodl-tmp", 50_000))),
                        "580.95.05", "open")
    state["conda"] = [{"prefix": "/root/miniconda3", "version": "24.5.0", "kind": "miniconda", "sound": True,
                       "writable": True, "envs": ["base"]}]
    ctx = context(state, data_dir="/root/autodl-tmp")
    assert not make_plan(ctx).step_changes("conda") and prefix(ctx) == "/root/miniconda3"
    assert envs_dir(ctx) == "/root/autodl-tmp/qwen-rig/envs"
    assert known_as(ctx) == "/root/miniconda3/envs/qwen-train", "where `conda activate qwen-train` looks"
    assert known_as(context(state)) == "", "no data disk: there it is"
    state["conda"][0]["writable"] = False
    assert known_as(context(state, data_dir="/root/autodl-tmp")) == "/root/.conda/envs/qwen-train"
