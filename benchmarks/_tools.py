"""The three that are compared. Each run is a whole process from its start to its exit (the floor: one per host)."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Protocol

from qwen_rig.deploy import watched
from qwen_rig.facts.probe import HostState
from qwen_rig.facts.state import State
from qwen_rig.managed import REPOSITORY

from . import _ansible
from ._fleet import Fleet

ROOT = Path(__file__).parents[1]
RIG = [str(Path(sys.executable).with_name("pyinfra")), "-y", "inventories/lab.py", "deploy/5090.py"]


class Failed(Exception):
    """A run that should have found everything right did not; with its last lines."""


class Tool(Protocol):
    """One of the three."""

    def run(self) -> float:
        """Wall seconds of one run that found everything right. Raises Failed."""


def _timed(command: list[str], env: dict[str, str], log: Path) -> float:
    with log.open("w") as file:
        start = time.perf_counter()
        code = subprocess.run(command, cwd=ROOT, env={**os.environ, **env}, stdin=subprocess.DEVNULL, stdout=file,
                              stderr=subprocess.STDOUT).returncode
        seconds = time.perf_counter() - start
    if code:
        raise Failed(f"{' '.join(command)} · exit {code}\n{_tail(log, 25)}")
    return seconds


def _tail(log: Path, lines: int) -> str:
    return "\n".join(log.read_text().splitlines()[-lines:])


class Rig:
    """The documented command."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet

    def run(self) -> float:
        """Wall seconds of one run."""
        own = str(self.fleet.folder / "state")  # what emulated packages take is no foretaste of real ones
        return _timed(RIG, {"LAB_HOSTS": str(self.fleet.lab), "XDG_STATE_HOME": own}, self.fleet.folder / "rig.log")

    def settle(self) -> int:
        """Run until nothing changes (the disk's copies have GPUs of their own, and are verified once);
        the SSH execs per host of a run that changed nothing."""
        for _ in range(3):
            before = self.fleet.execs()
            self.run()
            counts = {count - before[name] for name, count in self.fleet.execs().items()}
            if "✓ changed" not in (self.fleet.folder / "rig.log").read_text():
                return max(counts)
        raise Failed("the hosts don't settle\n" + _tail(self.fleet.folder / "rig.log", 60))


class Floor:
    """`ssh HOST sh -s < probe` for all hosts at once: the same probe text, nothing around it.

    With the key exchange that paramiko picks too: OpenSSH's own choice, a post-quantum one, takes a third longer at 30
    hosts, and what is slower than need be is no floor.
    """

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.probe = fleet.folder / "probe.sh"
        # In braces, as the probe closes its standard input, which is where the shell reads it from.
        self.probe.write_text("{\n" + str(HostState().command(files=watched())) + "\n}\n")

    def run(self) -> float:
        """Wall seconds until the last host has answered."""
        commands = [self._argv(host.name) for host in self.fleet.hosts]
        start = time.perf_counter()
        running = []
        for argv in commands:
            with self.probe.open("rb") as text:
                running.append(subprocess.Popen(argv, stdin=text, stdout=subprocess.PIPE, stderr=subprocess.STDOUT))
        outputs = [process.communicate()[0] for process in running]
        seconds = time.perf_counter() - start
        for process, output in zip(running, outputs, strict=True):
            if process.returncode:
                raise Failed(f"ssh … sh -s < probe · exit {process.returncode}\n{output.decode(errors='replace')}")
        return seconds

    def state(self) -> State:
        """What the probe says of the first host."""
        done = subprocess.run(self._argv(self.fleet.hosts[0].name), input=self.probe.read_text(), capture_output=True,
                              text=True, check=True)
        return State.of(HostState().process(done.stdout.splitlines()))

    def _argv(self, name: str) -> list[str]:
        program, *rest = self.fleet.bed.ssh_argv(name)
        return [program, "-o", "KexAlgorithms=curve25519-sha256", *rest, "sh", "-s"]


class Ansible:
    """ansible-core: linear strategy, pipelining, no fact gathering, as many forks as hosts."""

    def __init__(self, fleet: Fleet, binaries: Path, state: State) -> None:
        self.fleet, self.binaries = fleet, binaries
        source = fleet.bed.exec_(fleet.hosts[0].name, ["cat", REPOSITORY], check=True).stdout
        _ansible.write(fleet.folder, fleet.hosts, state, source)

    def run(self) -> float:
        """Wall seconds of one run."""
        log = self.fleet.folder / "ansible.log"
        command, env = _ansible.command(self.binaries, self.fleet.folder)
        try:
            seconds = _timed(command, env, log)
        finally:
            _ansible.hang_up(env)
        if re.search(r"(changed|failed|unreachable)=[1-9]", log.read_text()):
            raise Failed("the playbook found something to change\n" + _tail(log, 40))
        return seconds
