"""Finding and ending what a testbed left behind, by its folder's path: in command lines and in mount tables.

Disks are mounted in each supervisor's own mount namespace, and network, pid and time namespaces have no names:
when the processes are gone, so is everything but the links and the folder.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

from . import cgroup, net
from ._shell import HANG_S, TestbedError, run

OURS = ("testbed/files/supervisor.sh ", "testbed/files/stage.sh ", " testbed.httpd ")


def processes(folder: Path) -> list[int]:
    """Every process, on a host or serving one, that has to do with a testbed's folder."""
    text, own = f"{folder}/", os.getpid()
    here = _read(Path("/proc/self/mountinfo"))
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == own:
            continue
        arguments = _read(entry / "cmdline").replace("\0", " ")
        named = text in arguments and any(mark in arguments for mark in OURS)
        if named or ((mounts := _read(entry / "mountinfo")) != here and text in mounts):
            found.append(int(entry.name))
    return found


def end(folder: Path, timeout: float = HANG_S) -> None:
    """Kill the processes, delete the links and the folder. Fine when nothing is there."""
    deadline, killed = time.monotonic() + timeout, set[int]()
    while pids := processes(folder):
        killed.update(pids)
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > deadline:
            raise TestbedError(f"{folder.name} · processes {pids} live after {timeout:.0f} s · end them by hand")
        time.sleep(0.02)
    for pid in killed:  # those that this very process started would stay as zombies
        with suppress(ChildProcessError):
            os.waitpid(pid, 0)
    cgroup.remove(folder)
    net.unplug(net.names(folder))
    if folder.exists():
        run(["rm", "-rf", folder])  # of a hundred thousand files: a third of what Python takes


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode(errors="replace")
    except OSError:
        return ""
