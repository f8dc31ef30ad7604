"""A part at work: its commands below a time limit, what they said, what it must come to, its figures."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from .machine import Machine

PART_S = 540  # a part at most
RIG = ["python", "-m", "qwen_rig"]
PYINFRA = ["pyinfra", "-y", "inventories/lab.py", "deploy/5090.py"]


class Failed(Exception):
    """What a part should have come to, and what it came to."""


class GoesOn(Exception):
    """A part that isn't at its end: what goes on, and how to go on."""


@dataclass
class Command:
    """One command line: its exit code, its seconds, the end of what it printed."""

    argv: list[str]
    code: int
    seconds: float
    said: str


@dataclass
class Part:
    """One part's commands and figures; `why` where it failed or goes on."""

    name: str
    state: str = "failed"  # done · failed · goes on
    why: str = ""
    began: float = 0.0
    seconds: float = 0.0
    commands: list[Command] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)


class Runner:
    """A part at work: runs commands below its time limit and keeps what they said."""

    def __init__(self, machine: Machine, part: Part) -> None:
        self.machine, self.part = machine, part
        self._end = min(time.monotonic() + PART_S, machine.until)

    def left(self) -> float:
        return self._end - time.monotonic()

    def command(self, *argv: str, good: tuple[int, ...] = (0,), given: str | None = None) -> str:
        """Run a command of the product; what it printed. Raises Failed for another exit code than the good ones.
        `given`: what it reads on standard input."""
        start = time.monotonic()
        print(f"--- {self.part.name}: {' '.join(argv)}", flush=True)
        with subprocess.Popen(argv, cwd=self.machine.product, env=self.machine.environment(),
                              stdin=subprocess.DEVNULL if given is None else subprocess.PIPE,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
                              start_new_session=True) as made:
            try:
                said, _ = made.communicate(given, timeout=max(5.0, self.left()))
            except subprocess.TimeoutExpired:
                os.killpg(made.pid, signal.SIGKILL)
                said, _ = made.communicate()
        self._keep(argv, made.returncode, time.monotonic() - start, said, good)
        return said

    @contextmanager
    def begun(self, *argv: str, good: tuple[int, ...]) -> Iterator[subprocess.Popen[bytes]]:
        """A command of the product that is killed with -9 when the block ends. Raises Failed as command() does."""
        print(f"--- {self.part.name}: {' '.join(argv)}", flush=True)
        start = time.monotonic()
        with tempfile.TemporaryFile() as file:
            made = subprocess.Popen(argv, cwd=self.machine.product, env=self.machine.environment(), stdout=file,
                                    stdin=subprocess.DEVNULL, stderr=subprocess.STDOUT, start_new_session=True)
            try:
                yield made
            finally:
                made.kill()
                made.wait()
                file.seek(0)
                said = file.read().decode("utf-8", "replace")
                self._keep(argv, made.returncode, time.monotonic() - start, said, good)

    def _keep(self, argv: Sequence[str], code: int, took: float, said: str, good: tuple[int, ...]) -> None:
        print(said, flush=True)
        self.part.commands.append(Command(list(argv), code, round(took, 1), said[-6000:]))
        if code not in good:
            raise Failed(f"{' '.join(argv)}: exit {code} after {took:.0f} s, expected {good}")

    def expect(self, right: bool, what: str) -> None:
        if not right:
            raise Failed(what)


def unchanged(run: Runner, said: str) -> int:
    """How many operations a run had; none of them may have changed anything."""
    rows = re.findall(r"^ +(?:\w[\w -]* \| .*?|Grand total) +\d+ +(\S+) +(\S+) +(\S+) *$", said, re.M)
    run.expect(bool(rows) and all(row[:2] == ("-", "-") for row in rows), "a second run without changes")
    return len(rows) - 1


def document(said: str) -> Any:
    """The JSON document among what a command printed. Raises Failed where there is none."""
    found = re.search(r"^[\[{]", said, re.M)
    if found is None:
        raise Failed(f"no JSON in {said[-300:]!r}")
    return json.JSONDecoder().raw_decode(said[found.start():])[0]
