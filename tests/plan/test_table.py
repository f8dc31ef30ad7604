"""Real hosts → what the plan does, refuses and says: a row of table.yml each, through the real planner."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from qwen_rig.catalog.rules import load_rules
from qwen_rig.deploy.planning import make_plan
from qwen_rig.plan import Plan

from .states import bare, context, with_driver

TABLE: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("table.yml").read_text())
CARDS, SYSTEMS, ROWS = TABLE["cards"], TABLE["systems"], TABLE["rows"]
SYSTEM_STEPS = ("repository", "driver", "guard", "reboot", "compilers", "toolkit")
ALWAYS = ("conda", "env", "flash_attn", "training", "verification")  # no host here has an env
KEYS = {"gpus", "system", "kind", "driver", "smi", "host", "nvcc", "does", "na", "refused", "says", "train", "flash",
        "log", "source", "assumed"}


def state(row: dict[str, Any], cards: dict[str, str] = CARDS, systems: dict[str, Any] = SYSTEMS) -> dict[str, Any]:
    """The host of a row, in the shape of facts.probe.HostState."""
    system, kind = systems[row["system"]], row.get("kind", "bare_metal")
    made = bare(*(cards[card] for card in row["gpus"]), kind=kind, glibc=system["glibc"],
                arch=system.get("arch", "x86_64"),
                os={key: system[key] for key in ("id", "version_id", "pretty")} | {"codename": None},
                compilers={"gcc": system["gcc"], "g++": system["gcc"]},
                tools={"apt-get": system.get("apt", True)})
    made["host"].update(row.get("host", {}))
    made["cuda"] = [{"path": f"/usr/local/cuda-{release}", "release": release, "version": f"{release}.0"}
                    for release in row.get("nvcc", [])]
    made["kernel_log"]["lines"] = row.get("log", [])
    driver = row["driver"]
    if isinstance(driver, str):
        version, _, flavour = driver.partition(" ")
        with_driver(made, version, flavour)
        if not flavour:  # nobody told
            made["driver"].update(flavour=None, installed_flavour=None)
    elif driver:
        made["driver"].update(driver)
    if isinstance(driver, str):
        made["gpus"] = [listed(n, cards[card], row.get("smi", {})) for n, card in enumerate(row["gpus"])]
        if kind in ("bare_metal", "vm") and system.get("apt", True):
            made["dpkg"] = {"nvidia-driver": driver.split()[0]}
    if kind == "wsl":
        made["pci_gpus"] = []
    return made


def listed(number: int, device_id: str, said: dict[str, Any]) -> dict[str, Any]:
    """A row of nvidia-smi's; what the table's `smi` says goes before what the rules hold of the card."""
    known = load_rules().gpu(device_id)
    assert known is not None, f"qwen_rig/data/gpus.yml doesn't know {device_id}"
    return {"index": number, "name": known.name, "uuid": f"GPU-{number}", "mig": None,
            "pci_bus_id": f"00000000:{number + 1:02X}:00.0", "memory_mib": known.memory_mib,
            "compute_capability": known.compute_capability, **said}


def planned(row: dict[str, Any]) -> Plan:
    return make_plan(context(state(row)))


def name(row: dict[str, Any]) -> str:
    driver = row["driver"]
    if isinstance(driver, dict):
        driver = f"{driver.get('installed_version')}-loaded-{driver.get('loaded_version')}"
    told = "-".join(("+".join(row["gpus"]), row["system"], row.get("kind", "bare_metal"), driver or "no driver"))
    return told.replace(" ", "_")


def test_the_table_is_big_and_each_row_says_where_it_is_from() -> None:
    assert len(ROWS) >= 60
    assert all(row["source"] and not row.keys() - KEYS for row in ROWS)
    assert {row.get("kind", "bare_metal") for row in ROWS} == {"bare_metal", "vm", "container", "wsl"}
    assert len({yaml.safe_dump(state(row)) for row in ROWS}) == len(ROWS), "no state twice"


@pytest.mark.parametrize("row", ROWS, ids=name)
def test_a_real_host_gets_its_verdict(row: dict[str, Any]) -> None:
    plan = planned(row)
    assert all(refusal.remedy for refusal in plan.refusals)
    refusals = "; ".join(f"{refusal.what} → {refusal.remedy}" for refusal in plan.refusals)
    if "refused" in row:
        assert refusals
        for words in row["refused"]:
            assert words in refusals
        return
    assert not refusals
    steps = {step.component: step for step in plan.steps}
    assert [step for step in SYSTEM_STEPS if steps[step].action.changes] == row["does"]
    assert [step for step in SYSTEM_STEPS if steps[step].action.value == "n/a"] == row["na"]
    assert all(steps[step].action.changes for step in ALWAYS)
    said = {component: f"{step.now} → {step.wanted}: {step.why}" for component, step in steps.items()}
    said["plan"] = "; ".join((plan.headline, *plan.caveats))
    for component, words in row.get("says", {}).items():
        assert words in said[component]
    settings = steps["training"].payload.settings
    precision = next(kind for kind in ("bf16", "fp16") if settings[kind])
    batch = f"{settings['per_device_train_batch_size']}x{settings['gradient_accumulation_steps']}"
    assert f"{batch} {precision}" == row["train"]
    flash = row["flash"]
    assert ("wheel flash_attn-2.8.3" if flash == "wheel" else flash) in said["flash_attn"]
