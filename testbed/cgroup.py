"""The cgroups of hosts that run systemd: one folder a host in this machine's cgroup2 tree, found by the host's path."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

from ._shell import TestbedError

OURS = "qwen-rig-testbed"


def of(folder: Path) -> Path:
    """The cgroup of the host with this folder; TestbedError where this machine has no cgroup2 tree."""
    return tree() / OURS / "-".join(hashlib.sha256(str(part).encode()).hexdigest()[:12]
                                    for part in (folder.parent.parent, folder))


def tree() -> Path:
    """Where cgroup2 is mounted: alone, or beside version 1."""
    for line in Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines():
        if line.split(" ")[2] == "cgroup2":
            return Path(line.split(" ")[1])
    raise TestbedError("a host with systemd · takes cgroup2, which isn't mounted here")


def _rmdir(path: str, timeout: float = 5) -> None:
    """A cgroup is busy until its last killed process is quite gone."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            return os.rmdir(path)
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def remove(folder: Path) -> None:
    """Remove the cgroups of a host's folder, or of all hosts of a testbed's; their processes have ended."""
    try:
        root = tree() / OURS
    except TestbedError:
        return
    mark = hashlib.sha256(str(folder).encode()).hexdigest()[:12]
    for host in root.glob("*-*"):
        if mark in host.name.split("-"):  # the testbed's half, or the host's own
            for inner, _, _ in os.walk(host, topdown=False):
                _rmdir(inner)
