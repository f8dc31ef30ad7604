"""Host states for the planner's tests: plain data as facts.probe.HostState returns, all synthesized."""

from __future__ import annotations

import copy
import runpy
from pathlib import Path
from typing import Any

from qwen_rig import knobs
from qwen_rig.catalog.rules import load_rules
from qwen_rig.facts.state import State
from qwen_rig.plan import Context

REPO = Path(__file__).parents[2]
RTX5090, RTX4090, GTX1080, V100 = "10de:2b85", "10de:2684", "10de:1b80", "10de:1db4"

BARE: dict[str, Any] = {
    "host": {
        "kind": "bare_metal", "virt": None, "init": "systemd",
        "os": {"id": "debian", "version_id": "12", "codename": "bookworm", "pretty": "Debian GNU/Linux 12"},
        "kernel": "6.1.0-18-amd64", "arch": "x86_64", "glibc": "2.36", "boot_id": "a", "hostname": "lab",
        "uptime_s": 100, "time": 1780000000, "headers": False, "secure_boot": "disabled",
        "disks": [{"mount": "/", "fstype": "ext4", "size_mib": 200_000, "free_mib": 150_000}],
        "memory_mib": 64_000, "cores": 16.0, "compilers": {"gcc": None, "g++": None},
        "user": {"name": "root", "uid": 0, "home": "/root"}, "sudo": "root", "display_manager": None,
        "gpu_users": [], "apt_lock": None, "tools": {"apt-get": True},
        "network": {"proxies": {}, "tmpdir": "/tmp", "pip_index": None, "nameservers": 1, "proxy_script": None},
    },
    "pci_gpus": [], "gpus": [],
    "driver": {"loaded_version": None, "installed_version": None, "flavour": None, "cuda_version": None,
               "nouveau_loaded": False, "error": "not_installed", "excerpt": None, "installed_flavour": None},
    "cuda": [], "conda": [], "env": None, "generations": [], "dpkg": {}, "files": {},
    "kernel_log": {"source": "dmesg", "why_not": None, "lines": []}, "driver_upgrade": None, "problems": {},
}


def bare(*device_ids: str, **changes: Any) -> dict[str, Any]:
    """A bare host with these cards; `changes` go into its `host` part."""
    state = copy.deepcopy(BARE)
    state["pci_gpus"] = [{"slot": f"0000:{i + 1:02x}:00.0", "device_id": device, "subsystem_id": None, "class": "0300",
                          "driver": None} for i, device in enumerate(device_ids)]
    state["host"].update(changes)
    return state


def with_driver(state: dict[str, Any], version: str, flavour: str, loaded: str | None = "same",
                error: str | None = None) -> dict[str, Any]:
    """The same host with a driver installed, and loaded unless another (or no) version is."""
    running = version if loaded == "same" else loaded
    state["driver"].update(installed_version=version, installed_flavour=flavour, loaded_version=running,
                           flavour=flavour if running else None, error=error)
    return state


def context(state: dict[str, Any], stack: str = "guide", **set_: Any) -> Context:
    """A planner's context with the defaults of group_data/all.py, but for what is set."""
    defaults = runpy.run_path(str(REPO / "group_data" / "all.py"))
    data = {name: defaults[name] for name in knobs.NAMES} | {"stack": stack} | set_
    made = State.of(state)
    assert made.problems == state["problems"], made.problems
    return Context("lab-01", made, knobs.stack_of(stack), knobs.read(data, "test"), load_rules())
