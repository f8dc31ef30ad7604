"""Each finding from the measurement that shows it, and no other: one thing of a healthy card is spoilt at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from qwen_rig.catalog.rules import load_rules
from qwen_rig.catalog.stack import load_stack
from qwen_rig.certificate import judge
from qwen_rig.certificate.gates import load_gates
from qwen_rig.certificate.model import Certificate
from qwen_rig.errors import RigError
from qwen_rig.facts.records import EnvRecord

from .synthesized import h100, not_run, ok

GUIDE = load_stack("guide")
SLOT = "0000:00:06.0"  # of the synthesized card
PORT = "pcieport 0000:00:01.0:"  # the one above it
LEAST = (load_gates().seen["10de:2330"].matmul or (0, 0))[0]  # TFLOP/s that an H100 was seen to do


def certificate(measured: dict[str, Any], gpu: bool = True) -> Certificate:
    return judge.certificates(measured, load_gates(), load_rules(), GUIDE, gpu=gpu)[0]


def test_a_healthy_card_passes_and_what_it_lacks_is_not_run() -> None:
    made = certificate(h100())
    assert {check.name for check in made.checks if check.status != "pass"} == {
        "kernel_log", "flash_attention", "gated_delta", "peers", "all_reduce"}
    assert made.overall == "pass" and not made.of("fail") and not made.of("warn")
    assert made.environment["driver"] == "580.159.04" and made.environment["lock"] == GUIDE.lock_id
    assert made.check("matmul").expected.startswith(f"seen: {LEAST:.0f}–")  # type: ignore[union-attr]


Spoil = Callable[[dict[str, Any], dict[str, Any]], Any]


def _log(*lines: str, new: bool = False) -> Spoil:
    fresh = list(lines) if new else []
    return lambda host, checks: host.update(kernel_log=ok(source="dmesg", lines=list(lines), seen=1, new=fresh))


def _sample(**values: Any) -> Spoil:
    return lambda host, checks: [row.update(values) for row in checks["load"]["data"]["samples"]]


def _data(name: str, **values: Any) -> Spoil:
    return lambda host, checks: checks[name]["data"].update(values)


def _smi(**values: Any) -> Spoil:
    return lambda host, checks: host["cards"][0]["smi"].update({k.replace("__", "."): v for k, v in values.items()})


def _pci(**values: Any) -> Spoil:
    return lambda host, checks: checks["identity"]["data"]["pci"].update(values)


def _old_slot(host: dict[str, Any], checks: dict[str, Any]) -> None:
    """Of generation 4: nvidia-smi's most is then the slot's, and /sys alone tells the card's own."""
    _smi(pcie__link__gen__max=4)(host, checks)
    _sample(**{"pcie.link.gen.current": 4})(host, checks)
    for part in (checks["identity"], checks["load"]):
        part["data"]["pci"].update(max_link_speed="32.0 GT/s PCIe", current_link_speed="16.0 GT/s PCIe")
    checks["transfer"]["data"].update(to_card_gbs=26.0, to_host_gbs=25.0)  # as such a link carries


@pytest.mark.parametrize(("spoil", "found"), [
    (_smi(name="NVIDIA GeForce RTX 4090"), {"identity": "fail"}),  # a name that isn't its PCI id's
    (_smi(memory__total=40000), {"identity": "fail"}),
    (_smi(name="NVIDIA Graphics Device"), {"identity": "warn"}),
    (_data("torch_build", capability="8.9", archs=["sm_86"]), {"identity": "fail"}),  # forged: computes as another card
    (_data("torch_build", version="2.7.1+cu126", cuda="12.6"), {"torch_build": "fail"}),
    (_data("torch_build", archs=["sm_120"]), {"torch_build": "fail"}),
    (lambda host, checks: host["driver"]["data"].update(version="515.43"), {"driver": "fail"}),
    (_data("other_users", utilization=None, memory_mib=None), {"other_users": "not_run"}),  # unknown is never healthy
    (_log("NVRM: Xid (PCI:0000:00:06): 79, GPU has fallen off the bus."), {"kernel_log": "fail"}),
    (_log("NVRM: Xid (PCI:0000:00:06): 31, pid=1, MMU Fault"), {"kernel_log": "warn"}),
    (_log("NVRM: Xid (PCI:0000:0b:00): 79, GPU has fallen off the bus."), {"kernel_log": "pass"}),  # another card's
    (_log("NVRM: GPU 0000:00:06.0: GPU has fallen off the bus."), {"kernel_log": "fail"}),
    (_log("NVRM: GPU at PCI:0000:00:06: GPU-11111111"), {"kernel_log": "pass"}),  # its name, ahead of an Xid
    (_log(f"{PORT} AER: Corrected error received: {SLOT}"), {"kernel_log": "warn"}),
    (_log(f"{PORT} AER: Multiple Correctable error message received from {SLOT}"), {"kernel_log": "warn"}),
    (_log(f"{PORT} AER: Uncorrected (Non-Fatal) error received: {SLOT}"), {"kernel_log": "fail"}),
    (_log(f"{PORT} AER: Uncorrectable (Fatal) error message received from {SLOT}"), {"kernel_log": "fail"}),
    (_log(f"{PORT} AER: Uncorrected (Fatal) error received: 0000:0b:00.0"), {"kernel_log": "pass"}),
    (_log(f"{PORT} AER: Corrected error received: {SLOT}", new=True), {"kernel_log": "warn"}),
    (_log("NVRM: Xid (PCI:0000:00:06): 31, pid=1, MMU Fault", new=True), {"kernel_log": "fail"}),
    (_pci(aer_correctable=5000), {"pcie_errors": "warn"}),
    (_pci(aer_fatal=1), {"pcie_errors": "fail"}),
    (_sample(**{"pcie.link.width.current": 8}), {"pcie": "warn"}),
    (_sample(**{"pcie.link.width.current": 4}), {"pcie": "fail"}),
    (_sample(**{"pcie.link.gen.current": 3}), {"pcie": "warn"}),
    (_old_slot, {"pcie": "warn"}),
    (_smi(power__limit=450.0), {"power_limit": "warn"}),
    (_sample(reasons=["hardware_thermal"]), {"throttle": "fail"}),
    (_sample(reasons=["hardware_slowdown"]), {"throttle": "warn"}),
    (_sample(**{"temperature.gpu": 88}), {"temperature": "warn"}),
    (_sample(**{"temperature.gpu": 96}), {"temperature": "fail"}),
    (_data("ecc", **{"ecc.errors.uncorrected.volatile.total": 2}), {"ecc": "fail"}),
    (_data("ecc", **{"ecc.mode.current": None}), {"ecc": "not_run"}),
    (_data("precision", tf32=3e-7), {"precision": "fail"}),
    (_data("matmul", rows=[{"size": 8192, "tflops": 0.86 * LEAST, "low": 1, "high": 1}]), {"matmul": "warn"}),
    (_data("matmul", rows=[{"size": 8192, "tflops": 0.7 * LEAST, "low": 1, "high": 1}]), {"matmul": "fail"}),
    (_data("load", tflops=400.0), {"sustained": "warn"}),
    (_data("bandwidth", rows=[{"mib": 1024, "gbs": 2000.0, "low": 1, "high": 1}]), {"bandwidth": "fail"}),
    (_data("transfer", to_host_gbs=12.0), {"transfer": "warn"}),
    (_data("memory", wrong_words=3, first_wrong_byte=4096), {"memory": "fail"}),
    (_data("sdpa", worst=0.3), {"sdpa": "fail"}),
    (_data("training", losses=[[n, 6.0] for n in range(1, 21)]), {"training": "fail"}),
    (_data("training", finite=False), {"training": "fail"}),
    (_data("training", activations="float32"), {"training": "fail"}),
    (_data("training", fp32_error=2e-7), {"training": "fail"}),  # tf32 isn't on
    (_data("training", save={"status": "fail", "why": "no adapter"}), {"save": "fail"}),
    (_data("training", resume={"status": "fail", "why": "UnpicklingError"}), {"resume": "warn"}),
    (_data("largest_batch", batch=8), {"largest_batch": "warn"}),
    (lambda host, checks: host["group"].update(all_reduce={"status": "fail", "why": "no end after 150 s"}),
     {"all_reduce": "fail"}),
    (lambda host, checks: host["group"].update(all_reduce=ok(ranks=2, bus_gbs=150.0, version="2.27")),
     {"all_reduce": "fail"}),
    (lambda host, checks: host["group"].update(all_reduce=ok(ranks=2, bus_gbs=15.0, version="2.27",
                                                             without_peers="no end after 150 s")),
     {"all_reduce": "warn"}),
    (lambda host, checks: host["group"].update(all_reduce=ok(ranks=8, bus_gbs=150.0, version="2.27")),
     {"all_reduce": "warn"}),  # nobody has seen eight: no expectation on record
])
def test_one_finding_of_one_fault(spoil: Spoil, found: dict[str, str]) -> None:
    usual = {check.name: check.status for check in certificate(h100()).checks}
    measured = h100()
    spoil(measured, measured["cards"][0]["checks"])
    made = certificate(measured)
    changed = {check.name: check.status for check in made.checks if check.status != usual[check.name]}
    wanted = {name: status for name, status in found.items() if usual[name] != status}
    assert changed == wanted
    assert all(made.check(name).why for name in wanted if wanted[name] != "pass")  # type: ignore[union-attr]


def test_a_nightly_torch_is_judged_by_its_cuda_alone() -> None:
    measured = h100()
    torch = measured["cards"][0]["checks"]["torch_build"]["data"]
    for cuda, status in (("12.8", "pass"), ("13.0", "fail")):
        torch.update(version=f"2.10.0.dev20251101+cu{cuda.replace('.', '')}", cuda=cuda)
        made, = judge.certificates(measured, load_gates(), load_rules(), load_stack("nightly"))
        found = made.check("torch_build")
        assert found and found.status == status and found.expected.startswith("any release, CUDA 12.8"), found
        assert "None" not in found.why


@pytest.mark.parametrize(("built", "lock", "stack"), [
    (EnvRecord("qwen3", "0a" * 32), "0a0a0a0a0a0a", "qwen3"),
    (None, GUIDE.lock_id, "guide"),  # an env that somebody else made has no record
])
def test_the_lock_is_the_one_on_the_host(built: EnvRecord | None, lock: str, stack: str) -> None:
    made, = judge.certificates(h100(), load_gates(), load_rules(), GUIDE, built=built)
    assert (made.environment["lock"], made.environment["stack"]) == (lock, stack)


def test_while_others_use_the_card_slowness_is_no_fault_of_it() -> None:
    measured = h100()
    checks = measured["cards"][0]["checks"]
    _data("matmul", rows=[{"size": 8192, "tflops": 300.0, "low": 1, "high": 1}])(measured, checks)
    checks["other_users"] = ok(utilization=99, memory_mib=9000, processes=[])  # a container hides their names
    made = certificate(measured)
    assert made.check("other_users").status == made.check("matmul").status == "warn"  # type: ignore[union-attr]
    assert "99 % busy" in made.check("matmul").why  # type: ignore[union-attr]


def test_a_speed_that_nothing_is_known_of_is_no_pass() -> None:
    """Of a model in the rule table that nobody has measured yet; all else of it is judged."""
    measured, gates = h100(), load_gates()
    made, = judge.certificates(measured, replace(gates, seen={}), load_rules(), GUIDE)
    assert {check.name for check in made.of("warn")} == {"matmul", "bandwidth"} and made.overall == "warn"
    assert all("not judged" in check.why and check.numbers for check in made.of("warn"))


def test_an_unknown_card_has_no_expectation() -> None:
    measured = h100()
    card = measured["cards"][0]
    card["checks"]["identity"]["data"]["pci"]["device"] = "0x9999"
    card["smi"]["pci.device_id"] = "0x999910DE"
    made = certificate(measured)
    for name in ("identity", "matmul", "bandwidth"):
        assert made.check(name).expected == "no expectation on record"  # type: ignore[union-attr]
    assert made.overall == "warn"


def test_a_gpu_that_torch_cannot_see_fails_where_one_is_expected() -> None:
    measured = h100()
    checks = measured["cards"][0]["checks"]
    for name in checks:
        if name not in ("identity", "other_users", "ecc", "torch_build"):
            checks[name] = not_run("no GPU")
    checks["torch_build"]["data"].update(gpus=0, capability=None)
    assert certificate(measured).check("first_kernel").status == "fail"  # type: ignore[union-attr]
    made = certificate(measured, gpu=False)
    assert made.check("first_kernel").status == "not_run" and made.overall == "partial"  # type: ignore[union-attr]


def test_an_emulated_card_is_never_a_pass() -> None:
    measured = h100()
    measured["driver"]["data"]["emulated"] = True
    assert certificate(measured).overall == "partial"


@pytest.mark.parametrize("broken", [None, [], {}, {"format": 2, "cards": []}, {"format": 1, "cards": [{}]}, "text"])
def test_damaged_measurements_are_one_line(broken: Any) -> None:
    with pytest.raises(RigError) as error:
        judge.certificates(broken, load_gates(), load_rules(), GUIDE)
    assert "\n" not in str(error.value) and "measurements" in str(error.value)


def test_every_gate_has_its_judge() -> None:
    assert set(load_gates().checks) == set(judge.JUDGES)
