"""The host itself: who owns its kernel, system, disks, memory, user, tools, and who is at work on it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qwen_rig.facts import _dpkg, _host, _sh, _smi
from qwen_rig.facts._fact import FactProcessError, ProbeFact


class Host(ProbeFact[dict[str, Any]]):
    """What the host is. Memory and cores are the cgroup's where it limits them; sizes in MiB, times in seconds.

    `kind` is bare_metal, vm, container or wsl; in the last two the driver belongs to somebody else, and
    `kind_evidence` says how we know. `disks` are real file systems, a tmpfs only where one may work in it.

    **Example:**

    .. code:: python

        {"kind": "vm", "virt": "kvm", "kind_evidence": ["systemd-detect-virt says kvm"], "init": "systemd",
         "os": {"id": "debian", "version_id": "12", "codename": "bookworm", "pretty": "Debian GNU/Linux 12 (bookworm)"},
         "kernel": "6.1.0-18-amd64", "arch": "x86_64", "glibc": "2.36", "boot_id": "0f3c…",
         "machine": "8d1f0c…", "hostname": "lab-01",
         "uptime_s": 8123, "time": 1764000000, "headers": True, "secure_boot": "disabled",
         "disks": [{"mount": "/", "fstype": "ext4", "size_mib": 953869, "free_mib": 712004, "writable": True}],
         "memory_mib": 64216, "cores": 16.0, "compilers": {"gcc": "12.2.0", "g++": None},
         "user": {"name": "rig", "uid": 1000, "home": "/home/rig"}, "sudo": "passwordless", "display_manager": None,
         "gpu_users": [{"pid": 4711, "user": "ann", "name": "python3"}],
         "apt_lock": {"path": "/var/lib/dpkg/lock-frontend", "pid": 2180, "name": "unattended-upgr"},
         "tools": {"curl": True, "wget": False, …},
         "network": {"proxies": {"http_proxy": "http://***@proxy:3128"}, "tmpdir": "/tmp", "pip_index": None,
                     "nameservers": 1, "proxy_script": None}}
    """

    default = _host.EMPTY.copy

    def command(self) -> str:
        """Reads /proc, /sys, /etc and df; runs nvidia-smi not at all."""
        return _sh.script({**_dpkg.SECTIONS, **_host.SECTIONS}, _smi.FIND)

    def read(self, text: Mapping[str, str]) -> dict[str, Any]:
        """The host; an unreadable part is an error here, and an empty part with a problem in the composite."""
        found, problems = _host.read(text)
        if problems:
            raise FactProcessError("; ".join(f"{part}: {problem}" for part, problem in problems.items()))
        return found
