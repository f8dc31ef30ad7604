"""Running this machine's own commands."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

FILES = Path(__file__).parent / "files"
EMULATED = "EMULATED by the qwen-rig testbed"
HANG_S = 1800  # seconds after which a wait counts as a hang; no slow or busy machine reaches it


class TestbedError(Exception):
    """One clear line: what, where, remedy."""

    __test__ = False  # its name begins like a test class


def end_by_signals() -> None:
    """Let SIGTERM and SIGHUP end this process as Ctrl-C does: hosts that are up are taken down on its way out."""
    def end(number: int, _: FrameType | None) -> NoReturn:
        for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(each, signal.SIG_IGN)  # nothing keeps the hosts from being taken down
        print(f"ended by {signal.Signals(number).name}: taking the hosts down", file=sys.stderr)
        sys.exit(128 + number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup has it
            signal.signal(number, end)


def run(argv: Sequence[str | Path], *, stdin: str | None = None, env: Mapping[str, str] | None = None,
        cwd: Path | None = None, timeout: float | None = HANG_S) -> str:
    """Run a command and return its stdout; TestbedError with its last words when it fails.

    `env` is added to this process's own, with LC_ALL=C.
    """
    command = [str(part) for part in argv]
    try:
        done = subprocess.run(command, input=stdin, text=True, capture_output=True, timeout=timeout, cwd=cwd,
                              env={**os.environ, "LC_ALL": "C", **(env or {})}, check=False)
    except FileNotFoundError:
        raise TestbedError(f"{command[0]} · not on this machine · `python -m testbed ready` installs it") from None
    except subprocess.TimeoutExpired:
        raise TestbedError(f"{' '.join(command)[:120]} · no end after {timeout:.0f} s") from None
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().splitlines()[-5:]
        raise TestbedError(f"{' '.join(command)[:160]} · exit {done.returncode} · " + " / ".join(said))
    return done.stdout
