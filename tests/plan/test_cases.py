"""Hosts of public reports → what a right plan says, and what it must not (cases.yml); what nvidia-smi printed there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from qwen_rig.deploy.planning import make_plan
from qwen_rig.facts.probe import HostState
from qwen_rig.facts.state import State
from qwen_rig.plan import Context, Plan

from .states import RTX5090, bare, context
from .test_table import CARDS, KEYS, SYSTEMS, state

CASES: list[dict[str, Any]] = yaml.safe_load(Path(__file__).with_name("cases.yml").read_text())
SMI = Path(__file__).parents[1] / "facts" / "smi"
PROBE = {"smi": "path=/usr/bin/nvidia-smi\nrc={rc}\ntable_rc={rc}", "smi.list": "",
         "driver.proc": "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.95.05  Release Build",
         "driver.sys": "", "driver.modules": "", "driver.modinfo": "", "dpkg": "ii nvidia-open 580.95.05-1"}
GB10 = {"host.system": "kernel=6.17.0-1008-nvidia\nhostname=spark\narch=aarch64\nglibc=glibc 2.39\ntime=1780000000",
        "host.os": "ID=ubuntu\nVERSION_ID=24.04\nPRETTY_NAME='Ubuntu 24.04.3 LTS'",
        "pci": "slot=000f:01:00.0\nclass=0x030200\ndevice=0x2e12\ndriver=../../../bus/pci/drivers/nvidia"}
BANNER = "| NVIDIA-SMI 580.95.05   Driver Version: 580.95.05   CUDA Version: 13.0 |"


def laid_over(made: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    """A state with what a row's `state` says; a list goes before a list."""
    for key, value in more.items():
        inner = isinstance(value, dict) and isinstance(made.get(key), dict)
        made[key] = laid_over(made[key], value) if inner else value
    return made


def whole(plan: Plan) -> str:
    """All that a plan says."""
    return "\n".join([plan.headline, *(f"{refusal.what} → {refusal.remedy}" for refusal in plan.refusals),
                      *(f"{step.title}: {step.now} → {step.wanted}: {step.why}" for step in plan.steps),
                      *(f"installs {step.payload}" for step in plan.changes if step.component in ("driver", "toolkit")),
                      *plan.caveats])


@pytest.mark.parametrize("row", CASES, ids=[row["about"] for row in CASES])
def test_a_reported_host_is_planned_right(row: dict[str, Any]) -> None:
    assert row["source"] and not row.keys() - KEYS - {
        "about", "cards", "systems", "knobs", "stack", "state", "says", "never", "refused"}
    made = state({**row, "log": row.get("log", [])}, CARDS | row.get("cards", {}), SYSTEMS | row.get("systems", {}))
    plan = make_plan(context(laid_over(made, row.get("state", {})), row.get("stack", "guide"), **row.get("knobs", {})))
    said = whole(plan)
    assert bool(plan.refusals) is row["refused"], said
    assert all(refusal.what and refusal.remedy for refusal in plan.refusals)
    for words in row.get("says", []):
        assert words in said
    for words in row.get("never", []):
        assert words not in said


def probed(name: str, rc: int = 0) -> tuple[dict[str, Any], Plan]:
    """What the probe reads where nvidia-smi printed a file of tests/facts/smi, and the plan of that host."""
    table = SMI / f"{name}.table"
    text = {**PROBE, "smi": PROBE["smi"].format(rc=rc), "smi.csv": (SMI / f"{name}.csv").read_text(),
            "smi.table": table.read_text() if table.is_file() else BANNER}
    if table.is_file():  # its own driver
        text |= {"driver.proc": "", "dpkg": ""}
    text |= GB10 if name == "gb10" else {}
    found = HostState().process(
        line for part, words in text.items() for line in (f"##rig {part}", *words.splitlines()))
    if name == "gb10":  # its bus and its system too, as its probe tells them
        known = context(bare(RTX5090))
        return found, make_plan(Context("lab-01", State.of(found), known.stack, known.knobs, known.rules))
    host = {**bare(*[RTX5090] * len(found["gpus"])), "driver": found["driver"], "gpus": found["gpus"]}
    for slot, gpu in zip(host["pci_gpus"], found["gpus"], strict=True):
        slot["slot"] = f"0000:{gpu['pci_bus_id'][9:].lower()}" if gpu["pci_bus_id"] else slot["slot"]
    known = context(bare(RTX5090))
    return found, make_plan(Context("lab-01", State.of(host), known.stack, known.knobs, known.rules))


@pytest.mark.parametrize(("name", "error", "names", "refused", "says"), [
    # A public Nix note: CUDA Version: ERR! beside an MX250
    ("cuda-version-ERR", None, ["NVIDIA GeForce MX250"], True, "(sm_61)"),
    # A public training log whose cells say [GPU is lost]; the row composed
    ("one-of-two-lost", "gpu_lost", ["NVIDIA GeForce RTX 3090", None], True, "a GPU has fallen off the bus, of 2 here"),
    # akash-network/support#209; the rows composed
    ("akash-handle-and-rows", "gpu_lost", ["NVIDIA GeForce RTX 4090"] * 2, True, "fallen off the bus"),
    # The name: a public benchmark; the row composed
    ("vgpu-blackwell-dc-96q", None, ["NVIDIA RTX Pro 6000 Blackwell DC-4-96Q"], False, "a virtual GPU (96Q)"),
    # huggingface/candle#3358
    ("candle-5090-compat", None, ["NVIDIA GeForce RTX 5090"], True, "driver 580.126.09 has 13.0: compat libraries"),
    # A variation of the lost one
    ("unknown-error-cells", "unknown", ["NVIDIA GeForce RTX 4090", None], True, "tells nothing of GPU 1 of 2"),
    # A public Go test of what nvidia-smi prints when one of its GPUs fails, in our query's columns
    ("3x3090-one-failed", "gpu_lost", ["NVIDIA GeForce RTX 3090", None, "NVIDIA GeForce RTX 3090"], True,
     "GPU0000:02:00.0"),
    # The banner: snowflakedb/ArcticTraining#345; memory.total [N/A]: XuehaiPan/nvitop#208; the row composed
    ("gb10", None, ["NVIDIA GB10"], True, "this is an aarch64 machine, and the locks hold packages for x86_64 only"),
])
def test_what_nvidia_smi_printed_is_read(name: str, error: str | None, names: list[str | None], refused: bool,
                                         says: str) -> None:
    found, plan = probed(name)
    assert (found["driver"]["error"], [gpu["name"] for gpu in found["gpus"]]) == (error, names)
    assert bool(plan.refusals) is refused and says in whole(plan)


def test_a_gb10_is_told_in_one_refusal_why_and_what_to_do() -> None:
    found, plan = probed("gb10")
    assert (found["gpus"][0]["memory_mib"], found["gpus"][0]["compute_capability"]) == (None, "12.1")
    assert "GB10" in plan.headline and "580.126.09" in plan.headline
    [refusal] = plan.refusals
    assert "take this host out of the inventory" in refusal.remedy and "containers" in refusal.remedy


def test_every_file_of_nvidia_smis_is_read() -> None:
    marked = next(mark for mark in test_what_nvidia_smi_printed_is_read.pytestmark if mark.name == "parametrize")
    assert {path.name.split(".")[0] for path in SMI.iterdir()} == {row[0] for row in marked.args[1]}


def test_cards_whose_peer_to_peer_fails_train_without_it_and_all_others_settings_stay() -> None:
    pair = state({"gpus": ["RTX 4090", "RTX 4090"], "system": "ubuntu22.04", "driver": "580.95.05 open"})
    known = context(pair)
    for ctx, wanted in ((known, None), (replace(known, peers_fail=True), {"NCCL_P2P_DISABLE": "1"}),
                        (replace(context(bare(RTX5090)), peers_fail=True), None)):
        plan = make_plan(ctx)
        assert plan.step("training").payload.settings.get("environment") == wanted
        assert any("by their certificates" in said for said in plan.caveats) is bool(wanted)
