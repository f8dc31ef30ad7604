"""A run that a signal ends: at once, saying what was done, what was not begun and what goes on; by 128 + its number.

pyinfra's own handler ends with status 0, and Python's raises KeyboardInterrupt in whichever greenlet is at work. This
handler takes no lock (a greenlet may hold it), so it writes to the terminal itself, and it never comes back.
"""

from __future__ import annotations

import os
import shlex
import signal
import sys
from collections.abc import Iterable
from contextlib import suppress
from types import FrameType
from typing import NoReturn, Protocol

from qwen_rig import hosttext
from qwen_rig.frozen import frozen

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
SHOW_CURSOR = "\x1b[?25h"  # the live board hides it
# The runner of qwen_rig/host/job.sh, which ends its job. The brackets keep pkill from a process that has this line.
STOP = "pkill -TERM -f '[j]ob.sh supervise {step} '"


@frozen
class Left:
    """How a signal leaves one host. `done`, `ahead`: titles of steps; `cut`: of the one under way; `job`: that one's
    name, where it is at work on the host by itself; `login`: the command line that logs in; `sudo`: the job is root's,
    and the login isn't."""

    host: str
    done: tuple[str, ...] = ()
    cut: str = ""
    ahead: tuple[str, ...] = ()
    job: str = ""
    login: str = ""
    sudo: bool = False


def told(number: int, hosts: Iterable[Left], again: str, stop: str = "") -> list[str]:
    """The last words of a run: a line on each host that took part, and the command that goes on; `stop`: our own
    command that ends what is at work there. Pure."""
    rows = list(hosts)
    lines = [f"qwen-rig: ended by {signal.Signals(number).name}"
             + ("" if any(row.done or row.cut for row in rows) else "; nothing was changed")]
    for row in rows:
        lines += _host(row, stop)
    return [*lines, *([f"Stop it: {stop}"] if stop and any(row.job for row in rows) else []), f"Go on: {again}"]


def _host(row: Left, own: str) -> list[str]:
    words = [f"done: {', '.join(row.done)}"] if row.done else []
    if row.job:
        words.append(f"{row.cut} goes on there by itself")
    elif row.cut:
        words.append(f"cut off in {row.cut}")
    if row.ahead:
        words.append(f"not begun: {', '.join(row.ahead)}")
    lines = [f"  {row.host}  {' · '.join(words) or 'nothing to do'}"]
    if row.job and not own:
        stop = f"{row.login} \"{'sudo ' * row.sudo}{STOP.format(step=row.job)}\""
        lines.append(f"  {row.host}  to stop it: {stop}; the command below attaches to it")
    return lines


class Reported(Protocol):
    """What an ender asks of a run."""

    def left(self) -> list[Left]:
        """How each host stands."""

    def cut_short(self) -> None:
        """Put on record that what was begun isn't known to be whole."""


class Ender:
    """What ends this process when a signal comes.

    `again` is the command that goes on, `stop` our command that ends what is at work on the hosts, "" where that
    takes a login. A second signal meanwhile ends the process without words.
    """

    def __init__(self) -> None:
        self.again, self.stop = command_line(), ""
        self._ending = False

    def install(self, report: Reported) -> None:
        """Take the signals of this process for a run."""
        self._report = report
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup has it
                signal.signal(number, self._end)

    def _end(self, number: int, frame: FrameType | None) -> NoReturn:
        if not self._ending:
            self._ending = True
            with suppress(Exception):  # nothing may keep the process from its end
                lines = told(number, self._report.left(), self.again, self.stop)
                text = "\n".join(hosttext.lines(line) for line in lines)
                os.write(2, f"{SHOW_CURSOR if sys.stderr.isatty() else ''}\n{text}\n".encode())
                self._report.cut_short()
        os._exit(128 + number)


def command_line() -> str:
    """This process's own command, as a shell takes it."""
    name = os.path.basename(sys.argv[0])
    words = {"__main__.py": os.path.basename(os.path.dirname(sys.argv[0])).replace("_", "-")}
    return shlex.join([words.get(name, name), *sys.argv[1:]])
