"""What the user is told during a run: lines as steps finish, a card per failed host. The end of a run: ending.py.

All of it goes to standard error, as pyinfra's own words do; standard output stays pure for --json.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from rich.text import Text

from qwen_rig import atomic, doctor, exits, ledger, render
from qwen_rig.plan import Plan, Step
from qwen_rig.render import Card
from qwen_rig.ssh import shell_line

from . import adapter
from .adapter import Host, State
from .command_text import shown
from .links import Links
from .memory import UNREAD, Memory
from .progress import Board

LOGS = Path.home() / ".cache" / "qwen-rig" / "logs"
TAIL = 15  # lines of a failing command that a card shows


def now() -> str:
    """The time, in UTC, as ISO 8601 has it."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


class Report:
    """What one run has to tell, host by host.

    `plans`: as first made; `states`: what each was made from (plan/drift.py); `cards`: of the hosts that failed;
    `applied`: the steps done; `outcomes`: a word and a line for a host whose outcome is not a list of steps;
    `commands`: (component, title, lines) of each step, with -v; `times`: what steps took, for the ledger;
    `touched`: hosts that a step has begun to change. `tables` False: plans are told otherwise, as JSON.
    """

    def __init__(self, memory: Memory, links: Links, board: Board, tables: bool = True) -> None:
        self.tables, self.console = tables, render.console()
        self.plans: dict[str, Plan] = {}
        self.states: dict[str, dict[str, Any]] = {}
        self.cards: dict[str, Card] = {}
        self.applied: dict[str, list[Step]] = defaultdict(list)
        self.caveats: dict[str, list[str]] = defaultdict(list)
        self.outcomes: dict[str, tuple[str, str]] = {}
        self.commands: dict[str, list[tuple[str, str, list[str]]]] = defaultdict(list)
        self.times: list[tuple[str, float]] = []
        self.touched: set[str] = set()
        self._memory, self._links, self._board = memory, links, board
        self._waiting_cards: list[str] = []  # hosts whose cards wait for the plans to be shown
        self._commands_shown: set[str] = set()
        self._running: dict[str, tuple[Step, float]] = {}
        self._output: dict[str, list[str]] = defaultdict(list)

    def fail(self, host: str, what: str, remedy: str = "", later: bool = False, said: Iterable[str] | None = None,
             alone: bool = False, **more: Any) -> None:
        """Put a card on record for a host and show it, now or below the plans; a host gets one card, its first.

        What the host `said` goes to the doctor: the next step of a diagnosis replaces `remedy`. `alone`: the host was
        probed just now, so that its state may tell the cause where its words don't.
        """
        if host not in self.cards:
            found = doctor.diagnose(said, self._memory.last_state(host), alone) if said is not None else None
            if found:
                remedy, more["cause"] = found.next, f"{found.cause} ({found.name})"
            self.cards[host] = Card(host, what, remedy, **more)
            if later:
                self._waiting_cards.append(host)
            else:
                self.console.print(render.card(self.cards[host]))

    def show(self, plans: list[Plan], notes: list[str], verbose: bool) -> None:
        """The plans of all hosts as one table, its last line the cost; below it the cards of those left out."""
        if plans and self.tables:
            self.console.print()
            for note in notes:
                self.console.print(note, style="yellow")
            self.console.print(render.plan_table(plans, verbose))
            self.console.print()
        for host in self._waiting_cards:
            self.console.print(render.card(self.cards[host]))

    def show_commands(self, hosts: Iterable[Host]) -> None:
        """What each host's steps would run; once."""
        for host in hosts:
            if (rows := self.commands.get(host.name)) and host.name not in self._commands_shown:
                self._commands_shown.add(host.name)
                self.console.print(render.commands(host.name, [row[1:] for row in rows]), soft_wrap=True)

    def started(self, host: str, step: Step) -> None:
        """A step begins to change a host."""
        self.touched.add(host)
        self._running[host] = (step, time.monotonic())
        self._board.at(host, step.title)

    def said(self, host: str, lines: Iterable[str]) -> None:
        """Output of a command that failed inside a function; pyinfra keeps only that of its own commands."""
        self._output[host] += lines

    def under_way(self, host: str, seconds: float) -> None:
        """The step's work began that long ago, in an earlier run or another terminal: its time counts from then."""
        if host in self._running:
            step, since = self._running[host]
            self._running[host] = (step, since - seconds)

    def progress(self, host: str, what: str) -> None:
        """How far a long step is: on the board of a terminal, else a plain line."""
        step, _ = self._running.get(host, (None, 0.0))
        line = f"{step.title}: {what}" if step else what
        if not self._board.at(host, line):
            self.console.print(f"    {host}  {line}")

    # -- what pyinfra tells (adapter.Listener) -----------------------------------------------------------

    def connect_failed(self, host: Host, what: str) -> None:
        """A card for a host that can't be reached, unless somebody is still trying."""
        if self._links.expected(host.name, what):
            return
        remedy = "check address, port, user and key in the inventory"
        refusal, _, accepting = what.partition("; to accept it: ")  # qwen_rig/hostkeys.py
        if accepting:
            what, remedy = f"{refusal})", accepting.rstrip(")")
        elif "EOF when reading a line" in what:  # pyinfra asks about a jump host's key, and there's nobody to answer
            what = "its jump host (ProxyJump) isn't in known_hosts"
            remedy = f"log in by hand once and say yes: {shell_line(host.name, adapter.data(host))}"
        self.fail(host.name, f"could not connect: {what.removeprefix('Could not connect ').strip('()')}", remedy,
                  said=[what], status=exits.UNREACHABLE)

    def operation_started(self, host: Host) -> None:
        """Nothing is known yet of what the next operation does on this host."""
        self._running.pop(host.name, None)
        self._output.pop(host.name, None)

    def operation_succeeded(self, host: Host) -> None:
        """A line for a step that has changed a host; none where the operation changed nothing."""
        if host.name not in self._running:
            return
        step, since = self._running.pop(host.name)
        took = time.monotonic() - since
        self.applied[host.name].append(step)
        self._board.done(host.name)
        self.times.append((ledger.key(step, *self._memory.alike[host.name]), took))
        self.console.print(Text.assemble(
            "  ", (render.SYMBOL[step.action], render.STYLE[step.action]),
            f" {host.name}  {render.past(step)}: {step.now} → {step.wanted}  ({took:.0f} s)"))

    def operation_ended(self, state: State, last: bool) -> None:
        """All hosts are through with an operation."""
        self.failures(state)
        if last:
            self._look_again(state)

    def _look_again(self, state: State) -> None:
        """The run is over: probe what it changed and did not probe since, so that the ledger holds what is true."""
        for host in adapter.active(state):
            if self.applied[host.name] and host.name in self.plans and self._memory.remembered(host) is None:
                with suppress(*UNREAD):
                    self._memory.context(host)

    def failures(self, state: State) -> None:
        """A card for each host whose operation failed and has none yet."""
        for failure in adapter.failures(state):
            host = failure.host.name
            if host in self.cards:
                continue
            lines, ran = [*failure.lines, *self._output[host]], [shown(command) for command in failure.commands]
            what = f"{failure.names} failed"
            if not lines:
                what += ": the host said nothing (connection lost, or out of time)"
            last = _short(shown(failure.commands[-1], whole=False)) if ran else ""
            self.fail(host, what, "read the log, mend the cause, run the same command again", said=lines, command=last,
                      tail=tuple(lines[-TAIL:]), log=_log(host, failure.names, ran, lines))


def _short(command: str, width: int = 160) -> str:
    one = " ".join(command.split())
    return one if len(one) <= width else one[: width - 1] + "…"


def _log(host: str, names: str, commands: list[str], lines: list[str]) -> str:
    """Write what a failing operation ran (secrets masked) and said, for the user alone; returns the path, or '' if it
    can't."""
    path = LOGS / f"{time.strftime('%Y%m%d-%H%M%S')}-{host}.log"
    try:
        LOGS.mkdir(mode=0o700, parents=True, exist_ok=True)
        LOGS.chmod(0o700)  # one of 0.2.0's is open to all
        atomic.write(path, "\n".join([names, "", *commands, "", *lines, ""]), 0o600)
    except OSError:
        return ""
    return str(path)
