"""Every host of the folder of real outputs, planned: each file is put where the probe would have printed it, read by
the real facts, and planned for each stack on each kind of host.

The folder is third-party data and no part of this repository: see tests/facts/test_corpus.py. A file that tells of no
host's state stands in NOT_A_HOST with the reason: a new kind of file fails.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from qwen_rig import render
from qwen_rig.deploy import ORDER
from qwen_rig.deploy.planning import explain, make_plan
from qwen_rig.facts import _sh
from qwen_rig.facts.probe import HostState
from qwen_rig.plan import Plan
from qwen_rig.plan.document import of_plan
from tests.facts.test_corpus import FILES, ROOT

from .states import context

pytestmark = pytest.mark.skipif(not FILES, reason=f"no corpus of real outputs at {ROOT} (set QWEN_RIG_FIXTURES)")

NOT_A_HOST = {
    "apt_failure": "what apt said while it failed", "apt_policy": "versions that could be had, not what is there",
    "console": "what a program said", "conda_env_list_json": "names of envs alone",
    "conda_info_json": "another package manager's view of itself", "conda_meta_json": "one package of no env",
    "conda_list_json": "conda's packages; the plan reads Python's", "conda_list_text": "likewise",
}
CAPTURE = yaml.safe_load((Path(__file__).parents[1] / "facts" / "cases" / "probe.HostState" / "rented-h200.yaml")
                         .read_text())["output"]
# A whole probe's output, without what is the H200's own; of a time before the probe asked whose the paths are.
BLANK = {**_sh.sections(CAPTURE.splitlines()), "paths": "me\t0\t",
         **dict.fromkeys(("driver.proc", "driver.sys", "driver.modules", "driver.modinfo", "dpkg", "smi", "smi.csv",
                          "smi.list", "smi.table", "pci", "cuda"), "")}
BOOTED = "version=Linux version 6.1.0-18-amd64\npid1=systemd\nsystemd=1\nmodules=1\n"
KINDS = {
    "bare_metal": BOOTED, "vm": BOOTED + "detect_vm=kvm\nhypervisor_flag=1\n", "container": "dockerenv=1\npid1=sleep\n",
    "wsl": "version=Linux version 5.15.167.4-microsoft-standard-WSL2\npid1=systemd\n", "unknown": None,
}
SMI = "path=/usr/bin/nvidia-smi\nrc={rc}\ntable_rc={rc}"
RTX5090 = [("01:00.0", "0300", "2b85")]


def pci(cards: list[tuple[str, str, str]]) -> dict[str, str]:
    """The PCI section for (slot, class, device) rows."""
    return {"pci": "\n\n".join(f"slot=0000:{slot}\nclass=0x{kind}00\ndevice=0x{device}\ndriver="
                               for slot, kind, device in cards)}


def csv(rows: list[dict[str, Any]]) -> str:
    """Rows as our own query would have had them."""
    lines = [f"{n}, {row.get('name') or row.get('name_as_shown')}, {row.get('uuid', f'GPU-{n}')}, "
             f"{row.get('bus', f'00000000:{n + 1:02X}:00.0')}, "
             f"{row.get('memory_total_mib') or '[N/A]'} MiB, {row.get('compute_cap') or '[N/A]'}, "
             f"{'Enabled' if row.get('mig_enabled') else '[N/A]'}" for n, row in enumerate(rows)]
    return "\n".join(["index, name, uuid, pci.bus_id, memory.total [MiB], compute_cap, mig.mode.current", *lines])


def table(text: str, expect: dict[str, Any]) -> dict[str, str]:
    rows = expect.get("gpus") or [{"name": "a GPU that this file doesn't name"}]
    return {"smi": SMI.format(rc=0), "smi.table": text, "smi.csv": csv(rows)}


def xml(text: str, expect: dict[str, Any]) -> dict[str, str]:
    """The same host as the CSV query and the PCI bus would show it: the XML alone has both."""
    banner = (f"| NVIDIA-SMI {expect['driver_version']}  Driver Version: {expect['driver_version']}  "
              f"CUDA Version: {expect['cuda_version'] or 'N/A'} |")
    gpus = []
    for chunk in re.split(r"<gpu id=", text)[1:]:
        found = {key: (m[1] if (m := re.search(rf"<{tag}>([^<]*)</{tag}>", chunk)) else None) for key, tag in
                 (("name", "product_name"), ("uuid", "uuid"), ("bus", "pci_bus_id"), ("device", "pci_device_id"))}
        memory = re.search(r"<fb_memory_usage>\s*<total>(\d+)", chunk)
        gpus.append({**found, "memory_total_mib": memory and memory[1],
                     "mig_enabled": re.search(r"<current_mig>Enabled", chunk)})
    cards = [(f"{n + 1:02x}:00.0", "0300", gpu["device"][:4].lower()) for n, gpu in enumerate(gpus)
             if re.fullmatch(r"[0-9A-Fa-f]{8}", gpu["device"] or "")]
    for n, gpu in enumerate(gpus):
        gpu["bus"] = f"00000000:{n + 1:02X}:00.0"
    return {"smi": SMI.format(rc=0), "smi.table": banner, "smi.csv": csv(gpus), **pci(cards)}


def failed(text: str, expect: dict[str, Any]) -> dict[str, str]:
    there = expect["error"] != "not_installed"
    return {**pci(RTX5090), "smi": SMI.format(rc=255) if there else "", "smi.csv": text if there else ""}


def lspci(text: str, expect: dict[str, Any]) -> dict[str, str]:
    found = re.findall(r"^(?:[0-9a-f]{4}:)?([0-9a-f]{2}:[0-9a-f]{2}\.\d) .*\[(03\d\d)\].*\[10de:([0-9a-f]{4})\]", text,
                       re.MULTILINE)
    return pci(found or [("44:00.0", "0302", device) for device in re.findall(r"Device ([0-9a-f]{4})", text)])


def mokutil(text: str, expect: dict[str, Any]) -> dict[str, str]:
    said = {"enabled": "6 0 0 0 1", "disabled": "6 0 0 0 0", "not_efi": "unsupported"}[expect["secure_boot"]]
    return {**pci(RTX5090), "host.secure_boot": said}


def packages(text: str, expect: dict[str, Any]) -> dict[str, str]:
    names = "\n".join(f"{name.replace('-', '_')}-{version}.dist-info/METADATA"
                      for name, version in expect["versions"].items())
    return {**pci(RTX5090), "env": f"##env /root/miniforge3/envs/qwen-train\npython=1\nlib=3.10\n{names}",
            "conda": ""}


SECTIONS: dict[str, Callable[[str, dict[str, Any]], dict[str, str]]] = {
    "nvidia_smi_csv": lambda text, _: {"smi": SMI.format(rc=0), "smi.csv": text},
    "nvidia_smi_table": table, "nvidia_smi_q": table, "nvidia_smi_version": table, "nvidia_smi_xml": xml,
    "nvidia_smi_list": lambda text, _: {"smi": SMI.format(rc=0), "smi.list": text,
                                        "smi.csv": 'Field "compute_cap" is not a valid field to query.'},
    "nvidia_smi_error": failed, "lspci_nn": lspci, "lspci_nnk": lspci, "lspci_plain": lspci, "lspci_vmm_nn": lspci,
    "mokutil_sb_state": mokutil, "pip_freeze": packages, "pip_list_columns": packages,
    "nvcc": lambda text, _: {**pci(RTX5090), "cuda": f"##nvcc /usr/local/cuda\n{text}"},
    "proc_version": lambda text, _: {**pci(RTX5090), "driver.proc": text},
    "dpkg_l": lambda text, _: {**pci(RTX5090), "dpkg": text},
    "lsmod": lambda text, _: {**pci(RTX5090), "driver.modules": text},
    "ubuntu_drivers_devices": lambda _, expect: pci([("02:00.0", "0300", expect["vendor_device"][-4:])]),
}
HOSTS = [name for name in sorted(FILES) if FILES[name]["kind"] in SECTIONS]


def planned(name: str, kind: str, stack: str) -> tuple[dict[str, Any], Plan, Any]:
    entry = FILES[name]
    text = {**BLANK, **SECTIONS[entry["kind"]]((ROOT / name).read_text(errors="replace"), entry["expect"])}
    if KINDS[kind] is None:
        del text["host.kind"]
    else:
        text["host.kind"] = KINDS[kind] or ""
    state = HostState().read(text)
    ctx = context(state, stack)
    return state, make_plan(ctx), ctx


def test_every_kind_of_file_is_a_host_or_none_for_a_reason() -> None:
    assert {entry["kind"] for entry in FILES.values()} == SECTIONS.keys() | NOT_A_HOST.keys()
    assert len(HOSTS) > 90


@pytest.mark.parametrize("name", HOSTS)
def test_a_real_host_is_planned_for_each_stack_on_each_kind_of_host(name: str) -> None:
    for kind in KINDS:
        for stack in ("guide", "qwen3", "standin"):
            state, plan, ctx = planned(name, kind, stack)
            assert state["host"]["kind"] == kind
            assert not state["problems"].keys() - {"host.kind"} or FILES[name]["kind"] == "nvcc", state["problems"]
            assert plan.steps or plan.refusals
            assert all(refusal.what and refusal.remedy for refusal in plan.refusals)
            if kind in ("container", "wsl"):
                assert not plan.reboots and not any(plan.step_changes(step) for step in ("driver", "guard"))
    json.dumps(of_plan(plan, state))
    assert render.cost([plan])
    for component in ORDER:
        assert explain(ctx, plan, component).host == plan.host


@pytest.mark.parametrize(("name", "kind", "refused", "driver"), [
    ("smi-table/rtx5090-x2-610.57.04-kmd-umd.txt", "bare_metal", "", "none"),
    ("smi-table/rtx3090-460.73.01.txt", "bare_metal", "", "change"),
    ("smi-table/rtx3090-460.73.01.txt", "container", "rent a host with driver ≥ 5", ""),
    ("smi-xml/netdata-rtx-4090-535.86.05.xml", "vm", "", "none"),
    ("smi-xml/telegraf-quadro-p2000-525.125.06.xml", "bare_metal", "sm_61", ""),
    ("proc-version/proprietary-550.90.07-one-line.txt", "bare_metal", "", "change"),
    ("mokutil/enabled.txt", "bare_metal", "", "add"),  # Ubuntu: by its own signed modules
    ("smi-error/handle-gpu-is-lost.txt", "bare_metal", "fallen off the bus", ""),
    ("lspci/nn-gtx-980m.txt", "bare_metal", "sm_52", ""),
    ("lspci/nnmmv-vmware-no-nvidia.txt", "vm", "no NVIDIA GPU", ""),
    ("ubuntu-drivers/rtx5090-laptop-570.txt", "bare_metal", "", "add"),
    ("pip/list-columns-cu128.txt", "bare_metal", "", "add"),
])
def test_and_some_of_their_verdicts(name: str, kind: str, refused: str, driver: str) -> None:
    _, plan, _ = planned(name, kind, "guide")
    said = "; ".join(f"{refusal.what} → {refusal.remedy}" for refusal in plan.refusals)
    assert refused in said if refused else not said
    if driver:
        assert plan.step("driver").action.value == driver
