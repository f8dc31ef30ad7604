"""Plain lines for people and JSON for programs: the only prints of the package, each made fit for a terminal."""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from io import TextIOWrapper
from typing import IO, Any

from qwen_rig import hosttext
from qwen_rig.errors import RigError


def out(text: object = "") -> None:
    """A line (or several) on standard output: what was asked to be told. Raises RigError where nothing takes it."""
    _print(hosttext.shown(str(text)))


def err(text: object = "", end: str = "\n") -> None:
    """A line (or several) on standard error: all else."""
    with suppress(OSError):  # nobody is left to be told
        print(hosttext.shown(str(text)), file=sys.stderr, end=end, flush=True)


def as_json(found: Any) -> None:
    """A value as JSON on standard output. Raises RigError where nothing takes it."""
    _print(json.dumps(hosttext.value(found), indent=1, ensure_ascii=False))


def _print(text: str) -> None:
    try:
        print(text, flush=True)
    except BrokenPipeError:  # `| head`, q in less: who reads has seen enough
        into_nothing(sys.stdout)
    except OSError as error:  # a full disk
        raise RigError(f"what was asked for can't be written: {error.strerror}", "standard output",
                       "send it elsewhere") from None


def into_nothing(stream: IO[str]) -> None:
    """Let what a stream still holds, and all that follows, go nowhere."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def begin() -> None:
    """Have what a terminal's or file's encoding lacks written as an escape, instead of an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def end() -> bool:
    """Write out what is kept back, so that Python need not at its end: what fails there is status 120. Whether all was
    taken."""
    good = True
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None and not stream.closed:
                stream.flush()
        except OSError:
            good = False
            into_nothing(stream)
    return good
