"""Bad input, made from the types of what is read and thrown at the real readers: each ends in one line that says what,
where and what to do; none is taken silently, none ends in a traceback, and nobody is dialled."""

from __future__ import annotations

import contextlib
import io
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn
from unittest import mock

from hypothesis import HealthCheck, Phase, given, seed, settings

from qwen_rig.errors import RigError

from . import doors, tally
from .kinds import KINDS, Kind
from .tally import Tally

SLOW_S = 20.0  # of one reading, in a process that is at work already
DOORS = 0.04  # the part of the cases that goes through a door in a process of its own


class Dialled(BaseException):
    """Somebody was about to be dialled; no reader takes this for a mistake of the input's."""


@contextlib.contextmanager
def nobody_is_dialled() -> Iterator[None]:
    """Meanwhile, whoever connects or asks for an address raises Dialled."""
    def dialled(*_: Any, **__: Any) -> NoReturn:
        raise Dialled

    with mock.patch.object(socket.socket, "connect", dialled), mock.patch.object(
            socket.socket, "connect_ex", dialled), mock.patch.object(socket, "getaddrinfo", dialled):
        yield


def judge(score: Tally, kind: Kind, value: Any, folder: Path) -> None:
    """An input: a RigError of a line with a remedy, or (where it isn't bad for certain) nothing; all else is told."""
    score.thrown(kind.name)
    began, case = time.monotonic(), value
    told = io.StringIO()
    try:
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(told):
            kind.read(value, folder)
    except RigError as error:
        bad = kind.bad(value)
        if "\n" in str(error) or not error.what or not (error.remedy or (error.where and not bad)):
            score.found(tally.UNCLEAR, kind.name, case, str(error))
    except Dialled:
        score.found(tally.DIALLED, kind.name, case)
    except Exception as error:
        score.found(tally.TRACEBACK, kind.name, case, f"{type(error).__name__}: {error}")
    else:
        if kind.bad(value):
            score.found(tally.TAKEN, kind.name, case, told.getvalue())
    if time.monotonic() - began > SLOW_S:
        score.found(tally.SLOW, kind.name, case, f"{time.monotonic() - began:.0f} s")


def throw_kind(score: Tally, kind: Kind, count: int, number: int | None, folder: Path,
               more: Callable[[], bool] = lambda: True) -> None:
    """So many inputs of one kind; `number`: the seed (None: the same ones each time)."""
    def one(value: Any) -> None:
        if more():
            judge(score, kind, value, folder)

    thrown = settings(max_examples=count, derandomize=number is None, database=None, deadline=None,
                      phases=[Phase.generate], suppress_health_check=list(HealthCheck))(given(kind.values)(one))
    (thrown if number is None else seed(number)(thrown))()


def throw(score: Tally, count: int, more: Callable[[], bool]) -> None:
    """So many inputs, shared out over the kinds by their weights; a sample of them through the doors."""
    through = max(1, round(count * DOORS))
    whole = sum(kind.weight for kind in KINDS)
    with tempfile.TemporaryDirectory(prefix="campaign-") as folder, nobody_is_dialled():
        for kind in KINDS:
            of_kind = max(1, round((count - through) * kind.weight / whole))
            throw_kind(score, kind, of_kind, score.seed, Path(folder), more)
    doors.throw(score, through, more)
