"""Running this machine's own commands."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn

FILES = Path(__file__).parent / "files"
EMULATED = "EMULATED by the qwen-rig testbed"
SAY_EVERY_S = 10.0
HANG_S = 1800  # seconds after which a wait counts as a hang; no slow or busy machine reaches it


class TestbedError(Exception):
    """One clear line: what, where, remedy."""

    __test__ = False  # its name begins like a test class


def end_by_signals() -> None:
    """Let SIGTERM and SIGHUP end this process as Ctrl-C does: hosts that are up are taken down before it ends."""
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
        process = subprocess.Popen(command, stdin=None if stdin is None else subprocess.PIPE, stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, text=True, cwd=cwd,
                                   env={**os.environ, "LC_ALL": "C", **(env or {})})
    except FileNotFoundError:
        raise TestbedError(f"{command[0]} · not on this machine · `python -m testbed ready` installs it") from None
    with process, telling(" ".join(command)[:60]):
        try:
            out, err = process.communicate(stdin, timeout)
        except BaseException as error:
            process.kill()
            if isinstance(error, subprocess.TimeoutExpired):
                raise TestbedError(f"{' '.join(command)[:120]} · no end after {timeout:.0f} s") from None
            raise
    if process.returncode != 0:
        said = (err or out).strip().splitlines()[-5:]
        raise TestbedError(f"{' '.join(command)[:160]} · exit {process.returncode} · " + " / ".join(said))
    return out


@contextmanager
def telling(what: str) -> Iterator[None]:
    """Say every SAY_EVERY_S, while the block runs, that this machine is at it."""
    ended, began = threading.Event(), time.monotonic()

    def tell() -> None:
        while not ended.wait(SAY_EVERY_S):
            print(f"testbed: {what}: {time.monotonic() - began:.0f} s so far", file=sys.stderr, flush=True)

    teller = threading.Thread(target=tell, daemon=True)
    teller.start()
    try:
        yield
    finally:
        ended.set()
        teller.join()
