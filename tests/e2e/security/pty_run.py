"""A command run on a terminal of its own, as a person has one: what it showed, byte by byte, and how it ended."""

from __future__ import annotations

import os
import select
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests import HANG_S


@dataclass(frozen=True)
class Shown:
    """All bytes that reached the terminal, and the exit status."""

    raw: bytes
    code: int

    @property
    def text(self) -> str:
        return self.raw.decode(errors="replace")


def on_terminal(command: Sequence[str], folder: Path, environment: Mapping[str, str], typed: bytes = b"",
                asked: bytes = b"assword: ") -> Shown:
    """Run it; `typed` is answered to each question that has `asked` in it, so that none is waited for in vain."""
    ours, theirs = os.openpty()
    process = subprocess.Popen(command, cwd=folder, env={"TERM": "xterm-256color", **environment}, stdin=theirs,
                               stdout=theirs, stderr=theirs, start_new_session=True)
    os.close(theirs)
    said, answered, end = b"", 0, time.monotonic() + HANG_S
    try:
        while time.monotonic() < end:
            if select.select([ours], [], [], 0.2)[0]:
                try:
                    said += os.read(ours, 65536)
                except OSError:  # the other end is closed
                    break
            elif process.poll() is not None:
                break
            if typed and said.count(asked) > answered:
                answered += 1
                os.write(ours, typed)
        return Shown(said, process.wait(timeout=max(0.1, end - time.monotonic())))
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        os.close(ours)
