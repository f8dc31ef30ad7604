"""The cgroups of hosts, one folder a host, found by the host's path: in this machine's cgroup2 tree for those that run
systemd, and where memory is limited for those whose limit is real."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

from ._shell import TestbedError

OURS = "qwen-rig-testbed"


def of(folder: Path) -> Path:
    """The cgroup of the host with this folder; TestbedError where this machine has no cgroup2 tree."""
    return tree() / OURS / _name(folder)


def _name(folder: Path) -> str:
    return "-".join(hashlib.sha256(str(part).encode()).hexdigest()[:12] for part in (folder.parent.parent, folder))


class Memory:
    """A real limit on what the processes of a host may take together, those that it has now and those to come.

    Needs the memory controller of cgroup version 1; TestbedError where this machine has none.
    """

    def __init__(self, folder: Path, init: int, mib: int) -> None:
        """`init`: this machine's number of the host's pid 1."""
        self._folder = _memory() / OURS / _name(folder)
        self._folder.mkdir(parents=True, exist_ok=True)
        self.set(mib)
        space = os.readlink(f"/proc/{init}/ns/pid")
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if os.readlink(process / "ns" / "pid") == space:
                    (self._folder / "cgroup.procs").write_text(process.name)
            except OSError:  # ended meanwhile
                continue

    def set(self, mib: int) -> None:
        """Another limit; OSError where more than that is in use and can't be got back."""
        (self._folder / "memory.limit_in_bytes").write_text(str(mib * 2**20))

    @property
    def killed(self) -> int:
        """Processes that the kernel has ended because of it."""
        words = (self._folder / "memory.oom_control").read_text().split()
        return int(words[words.index("oom_kill") + 1])


def _memory() -> Path:
    """Where version 1's memory controller is mounted."""
    for line in Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines():
        _, where, kind, options, *_ = line.split(" ")
        if kind == "cgroup" and "memory" in options.split(","):
            return Path(where)
    raise TestbedError("a real limit on memory · takes cgroup version 1's memory controller, which isn't mounted here")


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
    mark = hashlib.sha256(str(folder).encode()).hexdigest()[:12]
    for find in (tree, _memory):
        try:
            root = find() / OURS
        except TestbedError:
            continue
        for host in root.glob("*-*"):
            if mark in host.name.split("-"):  # the testbed's half, or the host's own
                for inner, _, _ in os.walk(host, topdown=False):
                    _rmdir(inner)
