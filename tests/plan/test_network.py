"""Clocks, caches' disks, addresses with passwords: refused before anything is touched."""

from __future__ import annotations

from typing import Any

import pytest

from qwen_rig import knobs
from qwen_rig.deploy.planning import make_plan
from qwen_rig.errors import RigError

from .states import RTX5090, bare, context, with_driver


@pytest.mark.parametrize(("offset", "refused", "said"), [
    (-3 * 365 * 86400, "its clock is 3 years behind the controller's", ""),
    (2 * 86400, "its clock is 2 days ahead of the controller's", ""),
    (-400, "", "its clock is 6 minutes behind the controller's"),
    (20, "", ""),
])
def test_a_clock_is_refused_said_or_left_alone(offset: int, refused: str, said: str) -> None:
    plan = make_plan(context(bare(RTX5090, clock_offset_s=offset)))
    assert [r.what for r in plan.refusals if "clock" in r.what] == (
        [f"{refused}: certificates and signatures would be refused"] if refused else [])
    assert [c for c in plan.caveats if "clock" in c] == ([said] if said else [])


def test_in_a_container_the_clock_is_not_ours() -> None:
    state = with_driver(bare(RTX5090, kind="container", clock_offset_s=-9 * 86400), "580.95.05", "open")
    assert "rent another" in make_plan(context(state)).refusals[0].remedy


ADDRESS = "http://10.0.0.1/"
BY_ADDRESS = {f"source_{name}": ADDRESS for name in ("pip_index", "conda_channel", "miniforge", "nvidia_apt")}


@pytest.mark.parametrize(("network", "knobs_", "named"), [
    ({"nameservers": 0}, {}, "NVIDIA repository, Conda, Env qwen-train"),
    ({"nameservers": 0}, BY_ADDRESS | {"source_conda_channel": None}, "Env qwen-train"),
    ({"nameservers": 0}, BY_ADDRESS | {"source_miniforge": "https://lan.test/"}, "Conda"),
    ({"nameservers": 0}, BY_ADDRESS, ""),
    ({"nameservers": 0, "pip_index": "http://***@[fd00::1]/simple"}, BY_ADDRESS | {"source_pip_index": None}, ""),
    ({"nameservers": 0, "proxies": {"HTTPS_PROXY": "http://10.0.0.2:3128"}}, {}, ""),
    ({"nameservers": 0}, {"proxy": "http://10.0.0.2:3128"}, ""),
    ({"nameservers": 1}, {}, ""),
    ({"nameservers": None}, {}, ""),
])
def test_no_name_server_is_said_where_something_comes_by_name(network: dict[str, Any], knobs_: dict[str, Any],
                                                              named: str) -> None:
    plan = make_plan(context(bare(RTX5090, network=network), **knobs_))
    assert not plan.refusals and [said for said in plan.caveats if "name server" in said] == (
        [f"its /etc/resolv.conf has no name server: it must know the sources of {named} in another way, as by "
         "/etc/hosts"] if named else [])


@pytest.mark.parametrize(("free", "refused"), [(1000, True), (9000, False)])
def test_downloads_need_room_in_home_where_the_env_is_elsewhere(free: int, refused: bool) -> None:
    disks = [{"mount": "/", "fstype": "ext4", "size_mib": 20_000, "free_mib": free},
             {"mount": "/data", "fstype": "ext4", "size_mib": 900_000, "free_mib": 800_000}]
    plan = make_plan(context(bare(RTX5090, disks=disks), conda_prefix="/data/miniforge3"))
    assert any("/root/.cache" in r.what for r in plan.refusals) is refused


@pytest.mark.parametrize(("installer", "free", "refused", "said"), [
    ("auto", 500, False, True), ("auto", 9000, False, False), ("uv", 500, False, False), ("pip", 500, True, False)])
def test_pip_needs_room_where_it_unpacks(installer: str, free: int, refused: bool, said: bool) -> None:
    disks = [*ROOMY, {"mount": "/tmp", "fstype": "tmpfs", "size_mib": 9_999, "free_mib": free}]
    plan = make_plan(context(bare(RTX5090, disks=disks), installer=installer))
    assert (any("at /tmp" in r.what for r in plan.refusals), any("pip unpacks in /tmp" in c for c in plan.caveats)) \
        == (refused, said)


ROOMY = [{"mount": "/", "fstype": "ext4", "size_mib": 200_000, "free_mib": 150_000}]


@pytest.mark.parametrize(("root", "data", "old", "knobs_", "said"), [
    (300, 800_000, None, {"data_dir": "/data"}, "NVIDIA driver, C and C++ compiler take at least 1.0 GiB there"),
    (150, 800_000, "550.90.07", {"data_dir": "/data", "compilers": "never"},
     "NVIDIA driver take at least 0.2 GiB there"),
    (300, 800_000, "550.90.07", {"data_dir": "/data", "compilers": "never"}, ""),
    (7000, 800_000, None, {"data_dir": "/data", "cuda_toolkit": "always"},
     "NVIDIA driver, C and C++ compiler, CUDA toolkit take at least 8.4 GiB there"),
    (9000, 800_000, None, {"data_dir": "/data", "cuda_toolkit": "always"}, ""),
    (12_000, 0, None, {}, "NVIDIA driver, C and C++ compiler, Conda, Env qwen-train take at least 12.8 GiB there"),
    (14_000, 0, None, {}, ""),
])
def test_no_disk_is_filled_by_what_comes_beside_the_env(root: int, data: int, old: str | None, knobs_: dict[str, Any],
                                                        said: str) -> None:
    disks = [{"mount": "/", "fstype": "ext4", "size_mib": 20_000, "free_mib": root},
             {"mount": "/data", "fstype": "ext4", "size_mib": 900_000, "free_mib": data}]
    state = bare(RTX5090, disks=disks)
    plan = make_plan(context(with_driver(state, old, "proprietary") if old else state, **knobs_))
    assert [r.what.partition(", and ")[2] for r in plan.refusals] == ([said] if said else [])


def test_where_the_env_alone_is_too_much_beside_the_rest_another_disk_is_named() -> None:
    disks = [{"mount": "/", "fstype": "ext4", "size_mib": 20_000, "free_mib": 12_000},
             {"mount": "/data", "fstype": "ext4", "size_mib": 900_000, "free_mib": 800_000}]
    refused, = make_plan(context(bare(RTX5090, disks=disks))).refusals
    assert refused.remedy == "set data_dir to a folder on /data"


@pytest.mark.parametrize(("url", "said"), [
    ("https://bob:secret@mirror.test/simple", "must hold no user or password"),
    ("https://mirror.test/a b", "write spaces and quotes as"),
])
def test_an_address_carries_no_secret_and_no_quotes(url: str, said: str) -> None:
    with pytest.raises(RigError, match=said) as caught:
        knobs.check("source_pip_index", url)
    assert "secret" not in str(caught.value)
