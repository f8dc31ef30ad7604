"""Which hosts of a fleet are unlike the rest."""

from __future__ import annotations

from qwen_rig.plan.compare import differences, traits

from .states import RTX4090, RTX5090, bare, context, with_driver

SAME = {"driver": "580.95.05 open", "PCIe width": "x16"}


def test_one_among_six() -> None:
    fleet = {f"lab-0{n}": dict(SAME) for n in range(1, 7)}
    fleet["lab-03"] = {"driver": "570.169 open", "PCIe width": "x4"}
    assert differences(fleet) == ["lab-03 differs from the other five in: driver (570.169 open, not 580.95.05 open), "
                                  "PCIe width (x4, not x16)"]


def test_two_that_differ_have_no_majority() -> None:
    assert differences({"a": SAME, "b": {**SAME, "driver": "none"}}) == [
        "the hosts differ in driver: 580.95.05 open on a; none on b"]


def test_nothing_to_say() -> None:
    assert differences({}) == differences({"a": SAME}) == differences({"a": SAME, "b": dict(SAME)}) == []


def test_traits_of_real_states() -> None:
    five, four = bare(RTX5090, RTX5090), bare(RTX4090)
    five["pci_gpus"][0].update(pcie_width=16)
    five["pci_gpus"][1].update(pcie_width=4)
    has = traits(context(with_driver(five, "580.95.05", "open")))
    assert has["GPUs"] == "NVIDIA GeForce RTX 5090 ×2" and has["PCIe width"] == "x16, x4"
    assert traits(context(four))["driver"] == "none" and traits(context(four))["PCIe width"] == "not known"
