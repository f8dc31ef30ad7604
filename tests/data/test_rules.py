"""The rules' tables, asked as the planner asks them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from packaging.version import Version

from qwen_rig.catalog.datafile import DATA
from qwen_rig.catalog.rules import covered, load_rules
from qwen_rig.catalog.stack import load_stack
from qwen_rig.errors import RigError

RULES = load_rules()


@pytest.mark.parametrize(("device_id", "name", "cc", "memory"), [
    ("10de:2b85", "NVIDIA GeForce RTX 5090", "12.0", 32607),
    ("10DE:2B85", "NVIDIA GeForce RTX 5090", "12.0", 32607),
    ("10de:2b87", "NVIDIA GeForce RTX 5090 D", "12.0", 32607),
    ("10de:2c18", "NVIDIA GeForce RTX 5090 Laptop GPU", "12.0", 24463),
    ("10de:2c58", "NVIDIA GeForce RTX 5090 Laptop GPU", "12.0", 24463),
    ("10de:2684", "NVIDIA GeForce RTX 4090", "8.9", 24564),
    ("10de:1eb8", "Tesla T4", "7.5", 15360),
    ("10de:1b80", "NVIDIA GeForce GTX 1080", "6.1", None),
    ("10de:2b8c", "NVIDIA GeForce RTX 5090 D V2", "12.0", None),
    ("10de:2d18", "NVIDIA GeForce RTX 5070 Laptop GPU", "12.0", None),
    ("10de:28e0", "NVIDIA GeForce RTX 4060 Laptop GPU", "8.9", None),
    ("10de:1db6", "Tesla V100 PCIe 32GB", "7.0", None),
    ("10de:102d", "Tesla K80", "3.7", None),
    ("10de:2331", "NVIDIA H100 PCIe", "9.0", None),
])
def test_cards(device_id: str, name: str, cc: str, memory: int | None) -> None:
    card = RULES.gpu(device_id)
    assert card is not None
    assert (card.name, card.compute_capability, card.memory_mib) == (name, cc, memory)


def test_unknown_card() -> None:
    assert RULES.gpu("10de:ffff") is None


def test_every_card_is_well_formed() -> None:
    for device_id, card in RULES.gpus.items():
        assert re.fullmatch(r"10de:[0-9a-f]{4}", device_id)
        assert Version("3.0") <= Version(card.compute_capability) <= Version("12.1")
        assert card.memory_mib is None or 1000 < card.memory_mib < 300_000


@pytest.mark.parametrize(("cc", "flavour", "driver", "nvcc", "last"), [
    ("12.0", "open", "570.26", "12.8", None),
    ("12.1", "open", "570.26", "12.9", None),
    ("10.0", "open", "570.26", "12.8", None),
    ("10.3", "open", "570.26", "12.9", None),
    ("9.0", None, "525", "11.8", None),
    ("8.9", None, "525", "11.8", None),
    ("7.5", None, "525", "11.8", None),
    ("7.0", "proprietary", "525", "11.8", 580),
    ("6.1", "proprietary", "525", "11.8", 580),
    ("3.7", "proprietary", "525", "11.8", 470),
    (None, None, "570.26", "12.9", None),
])
def test_what_a_card_demands(cc: str | None, flavour: str | None, driver: str, nvcc: str, last: int | None) -> None:
    capability = Version(cc) if cc else None
    assert RULES.flavour(capability) == flavour
    assert RULES.least_driver("12.8", capability) == driver
    assert RULES.least_nvcc(capability) == nvcc
    assert RULES.last_branch(capability) == last


@pytest.mark.parametrize(("cuda", "cc", "driver"), [
    ("13.0", "12.0", "580"), ("13.2", "12.0", "580"), ("13.5", "9.0", "580"), ("12.9", "12.0", "570.26"),
    ("12.6", "12.0", "570.26"), ("12.6", "8.9", "525"), ("13.2", None, "580")])
def test_a_branch_serves_its_cuda_major_and_a_new_card_from_the_first_driver_that_knows_it(
        cuda: str, cc: str | None, driver: str) -> None:
    assert RULES.least_driver(cuda, Version(cc) if cc else None) == driver


@pytest.mark.parametrize(("driver", "cuda"), [  # as nvidia-smi's own banners pair them, captured
    ("580.159.04", "13.0"), ("570.133.07", "12.8"), ("565.57.01", "12.7"), ("535.161.08", "12.2"), ("495.44", "11.5"),
    ("430.26", "10.2"), ("384.66", "9.0"), ("610.57.04", "13.3"), ("590.48.01", "13.1"), ("595.71.05", "13.2")])
def test_the_cuda_that_a_driver_tells_of_itself(driver: str, cuda: str) -> None:
    assert RULES.own_cuda(driver) == cuda


@pytest.mark.parametrize(("driver", "least"), [
    ("596.36", "13.2"), ("591.86", "13.1"), ("576.02", "12.9"), ("516.59", "11.7")])
def test_windows_drivers_lie_between_and_are_never_held_against_a_lesser_cuda(driver: str, least: str) -> None:
    bound = RULES.own_cuda(driver)
    assert bound is not None and Version(bound) >= Version(least)


def test_what_no_rule_knows_is_none() -> None:
    assert [RULES.own_cuda(driver) for driver in ("999.1", "x", "²", "", None)] == [None] * 5
    assert RULES.until("999.1") is None and RULES.until("580.95.05") == "2028-06"
    assert RULES.last_branch(Version("7.0")) is not None
    assert all(last <= RULES.proprietary_until for _, last in RULES.legacy), "old cards take proprietary modules"


@pytest.mark.parametrize(("glibc", "nvcc"), [
    ("2.36", None), ("2.40", None), ("2.41", "13.0"), ("2.42", "13.2"), ("2.43", "13.2"), (None, None)])
def test_the_nvcc_that_a_glibc_takes(glibc: str | None, nvcc: str | None) -> None:
    assert RULES.nvcc_beside(Version(glibc) if glibc else None) == nvcc


ARCHS = ["sm_70", "sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120"]


@pytest.mark.parametrize(("archs", "cc", "runs"), [
    (ARCHS, "12.0", True), (ARCHS, "12.1", True), (ARCHS, "8.9", True), (ARCHS, "8.0", True), (ARCHS, "7.0", True),
    (ARCHS, "10.3", True), (ARCHS, "6.1", False), (ARCHS, "11.0", False),
    (["sm_86"], "8.0", False), (["sm_90"], "12.0", False), (["sm_90a"], "9.0", True), (["sm_100a"], "10.3", False),
    (["sm_90", "compute_90"], "12.0", True), (["compute_120"], "9.0", False), (["gfx90a", ""], "9.0", False),
])
def test_code_runs_on_its_major_from_its_minor_on(archs: list[str], cc: str, runs: bool) -> None:
    assert covered(archs, Version(cc)) is runs


@pytest.mark.parametrize(("os_id", "version_id", "tested"), [
    ("debian", "12", True), ("debian", "13", True), ("ubuntu", "22.04", False), ("ubuntu", "24.04", False)])
def test_driver_sets(os_id: str, version_id: str, tested: bool) -> None:
    packages = RULES.driver_set(os_id, version_id)
    assert packages is not None and packages.tested is tested
    assert packages.packages("open", 580) == [["nvidia-driver-pinning-580"], ["nvidia-open"]]
    assert packages.packages("proprietary", 590) == [["nvidia-driver-pinning-590"], ["cuda-drivers"]]
    assert packages.packages("open", 570) == [["nvidia-open-570"]]
    assert packages.packages("proprietary", 570) == [["cuda-drivers-570"]]


def test_a_distributions_own_packages_are_for_one_kernel() -> None:
    packages = RULES.driver_set("ubuntu", "26.04")
    assert packages is not None and packages.key is None and set(packages.own) == {580, 595}
    assert packages.own_templates("open", "7.0.0-29-generic")[0][0] == \
        "linux-modules-nvidia-{branch}-server-open-7.0.0-29-generic"
    assert not any("open" in name for name in packages.own_templates("proprietary", "x")[0])


def test_no_driver_set_for_others() -> None:
    assert RULES.driver_set("fedora", "44") is None
    assert RULES.driver_set("debian", "11") is None


def test_the_least_toolkit_of_torchs_own_major_that_knows_the_cards() -> None:
    assert RULES.toolkit("12.4", "11.8") == ("12.8", "cuda-toolkit-12-8")
    assert RULES.toolkit("12.8", "12.9") == ("12.9", "cuda-toolkit-12-9")
    assert RULES.toolkit("13.2", "12.8") == ("13.0", "cuda-toolkit-13-0")
    assert RULES.toolkit("14.0", "12.8") is None and RULES.toolkit("12.8", "13.1") is None
    assert all(name == f"cuda-toolkit-{release.replace('.', '-')}" for release, name in RULES.toolkits.items())


def test_torch_builds() -> None:
    assert RULES.torch_builds("2.5.1") == ("cu118", "cu121", "cu124")
    assert RULES.first_torch("cu128") == "2.7" and RULES.torch_builds("2.15.0") == ("cu130", "cu132")
    assert RULES.torch_builds("9.9") == () and RULES.first_torch("cu999") is None


def test_each_distribution_names_the_key_of_its_repository() -> None:
    keys = {folder: row.key for folder, row in RULES.drivers.items()}
    assert all(re.fullmatch(r"[0-9A-F]{40}", key.fingerprint) for key in keys.values() if key)
    assert {folder: key.file if key else None for folder, key in keys.items()} == {
        "debian12": "3bf863cc.pub", "ubuntu2204": "3bf863cc.pub", "ubuntu2404": "3bf863cc.pub",
        "debian13": "8793F200.pub", "ubuntu2604": None}


@pytest.mark.parametrize(("row", "said"), [
    ("{tested: false, bytes: null}", "key is missing"),  # a row that says nothing of its key inherits none
    ("{tested: false, bytes: null, key: 7FA2AF80}", "no apt key '7FA2AF80'"),
])
def test_a_row_without_a_known_key_is_refused_with_its_line(row: str, said: str, tmp_path: Path,
                                                            monkeypatch: pytest.MonkeyPatch) -> None:
    text = (DATA / "rules.yml").read_text()
    for name in ("sources.yml", "gpus.yml"):
        (tmp_path / name).write_text((DATA / name).read_text())
    marked = "    debian12: {tested"
    (tmp_path / "rules.yml").write_text(text.replace(marked, f"    ubuntu2610: {row}\n{marked}"))
    line = text[:text.index(marked)].count("\n") + 1
    monkeypatch.setattr("qwen_rig.catalog.rules.DATA", tmp_path)
    with pytest.raises(RigError) as refused:
        load_rules.__wrapped__()
    told = str(refused.value)
    assert said in told and "ubuntu2610" in told and f"rules.yml:{line}" in told


def test_miniforge_is_named_by_version_and_sum() -> None:
    forge = RULES.miniforge
    assert forge.url.endswith(forge.version) and re.fullmatch(r"[0-9a-f]{64}", forge.sha256)


def test_the_arch_list_is_the_builds_and_the_stacks_agree_with_it() -> None:
    for name in ("grpo", "guide", "qwen3", "qwen3.5", "qwen3.5-cu128"):
        torch = load_stack(name).torch
        assert torch is not None and torch.release is not None
        build = f"{'.'.join(torch.release.split('.')[:2])} cu{torch.cuda.replace('.', '')}"
        assert RULES.archs[build] == torch.archs
    assert all(build.split()[1] in RULES.torch_builds(build.split()[0]) for build in RULES.archs)


@pytest.mark.parametrize(("cc", "builds"), [
    ("12.0", ["2.14 cu130", "2.13 cu130", "2.10 cu128", "2.9 cu128", "2.8 cu128", "2.7 cu128"]),
    ("7.0", ["2.10 cu128", "2.9 cu128", "2.9 cu126", "2.8 cu128"]),  # a V100: not 2.7 cu128, none of CUDA 13
    ("6.1", ["2.9 cu126"]), ("5.2", ["2.9 cu126"]), ("3.7", []),
])
def test_what_would_serve_a_card(cc: str, builds: list[str]) -> None:
    assert RULES.serving(Version(cc)) == builds


def test_the_stacks_flash_attn_is_one_that_was_released_for_its_torch() -> None:
    flash = load_stack("guide").flash_attn
    assert flash is not None and flash.torch is not None
    row = RULES.flash[flash.version]
    assert flash.torch in row.torch and (flash.archs, flash.glibc) == (row.archs, row.glibc)
    assert set(load_stack("guide").pythons) <= set(row.pythons)
    assert load_stack("qwen3").flash_candidates("3.10", "2.36", [Version("12.0")]) == (
        [], ["flash-attn's own wheels are for torch 2.2 to 2.8, and the stack has 2.9.1"])
    assert not covered(RULES.flash["2.7.4.post1"].archs, Version("12.0"))  # built by nvcc 12.4
