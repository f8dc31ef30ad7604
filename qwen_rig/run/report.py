"""What the user is told during a run: lines as steps finish, a card per failed host. The end of a run: ending.py.

Where each word goes is run/screens.py's: results to standard output, the rest to standard error.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from datetime import datetime, timezone
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from rich.console import RenderableType
from rich.text import Text

from qwen_rig import exits, ledger, render
from qwen_rig.errors import RigError
from qwen_rig.plan import Plan, Step
from qwen_rig.render import Card
from qwen_rig.ssh import shell_line
from qwen_rig.tracebacks import folded

from . import adapter, stumble
from .adapter import LOST, ConnectError, Failure, Host, PyinfraError, State
from .command_text import shown, with_inventory
from .limits import Flooded, Unanswered
from .links import Links
from .memory import UNREAD, Memory, ProbeFailed
from .progress import Board
from .screens import Screens

if TYPE_CHECKING:
    from qwen_rig.doctor import Finding

T = TypeVar("T")
TAIL = 15  # lines of a failing command that a card shows
SEE_PROBE = "run `pyinfra INVENTORY fact facts.probe.HostState` to see it"
OWN, OWN_SHOWN = "qwen-rig: ", 300  # what begins so was said by our own programs on the host; characters of that


def now() -> str:
    """The time, in UTC, as ISO 8601 has it."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


class Report:
    """What one run has to tell, host by host.

    `plans`: as first made; `states`: what each was made from (plan/drift.py); `cards`: of the hosts that failed;
    `applied`: the steps done; `outcomes`: a word and a line for a host whose outcome is not a list of steps;
    `more`: what --json tells of a host besides; `commands`: (component, title, lines) of each step, with -v; `times`:
    what steps took, for the ledger; `took`: what each step done took on a host, by component;
    `touched`: hosts that a step has begun to change; `jobs`: the step whose job is at work on a host now, and whether
    by sudo; `ahead`: no host waits for another at a step's end. `tables` False: plans are told otherwise, as JSON.
    `spoilt`: which file of its bundle a host could not be served; `inventory`: what -i named.
    """

    def __init__(self, memory: Memory, links: Links, board: Board, screens: Screens, tables: bool = True,
                 spoilt: Callable[[str], str] = lambda name: "", inventory: str | None = None) -> None:
        self.tables, self.screens, self.console = tables, screens, screens.talk
        self.inventory = inventory
        self.plans: dict[str, Plan] = {}
        self.states: dict[str, dict[str, Any]] = {}
        self.cards: dict[str, Card] = {}
        self.applied: dict[str, list[Step]] = defaultdict(list)
        self.caveats: dict[str, list[str]] = defaultdict(list)
        self.outcomes: dict[str, tuple[str, str]] = {}
        self.more: dict[str, dict[str, Any]] = defaultdict(dict)
        self.took: dict[str, dict[str, float]] = defaultdict(dict)
        self.commands: dict[str, list[tuple[str, str, list[str]]]] = defaultdict(list)
        self.times: list[tuple[str, float]] = []
        self.touched: set[str] = set()
        self.ahead = False
        self.jobs: dict[str, tuple[str, bool]] = {}
        self._memory, self._links, self._board, self._spoilt = memory, links, board, spoilt
        self._after: list[Callable[[State, Collection[str]], None]] = []
        self._waiting_cards: list[str] = []  # hosts whose cards wait for the plans to be shown
        self._commands_shown: set[str] = set()
        self._running: dict[str, tuple[Step, float]] = {}
        self._output: dict[str, list[str]] = defaultdict(list)

    def fail(self, host: str, what: str, remedy: str = "", later: bool = False, said: Iterable[str] | None = None,
             alone: bool = False, link: bool = False, **more: Any) -> None:
        """Put a card on record for a host and show it, now or below the plans; a host gets one card, its first.

        What the host `said` goes to the doctor: the next step of a diagnosis replaces `remedy`. `alone`: the host was
        probed just now, so that its state may tell the cause where its words don't. `link`: our connection said it.
        """
        if host not in self.cards:
            if said is not None and (found := self._diagnosis(host, said, alone, link)):
                remedy, more["cause"] = found.next, f"{found.cause} ({found.name})"
                what = what.removesuffix(f": {remedy}")  # our own program's advice, said once
            self.cards[host] = Card(host, what, with_inventory(remedy, self.inventory, {host}), **more)
            if later:
                self._waiting_cards.append(host)
            else:
                self.screens.alarms.print(render.card(self.cards[host]))

    def _diagnosis(self, host: str, said: Iterable[str], alone: bool, link: bool) -> Finding | None:
        """What the doctor makes of it; loaded here, as a run in which nothing fails needs none of its data."""
        from qwen_rig import doctor
        return doctor.diagnose(said, self._memory.last_state(host), alone, link)

    def contained(self, host: str, act: Callable[[], T], later: bool = False, diagnose: bool = False) -> T | None:
        """What `act` makes of one host; None, and that host's card, whatever it raises: no host ends another's run.

        `later`: the card is shown below the plans. `diagnose`: the doctor hears what was said of the host.
        """
        try:
            return act()
        except RigError as error:
            self.fail(host, error.what, error.remedy, later=later)
        except Exception as error:
            what, remedy = _words(error)
            log = "" if remedy != stumble.REMEDY else stumble.write(host, stumble.traced(error))
            self.fail(host, what, remedy, later=later, said=[str(error)] if diagnose else None, link=True,
                      log=log)
        return None

    def show(self, plans: list[Plan], notes: list[str], verbose: bool) -> None:
        """The plans of all hosts as one table, its last line the cost; below it the cards of those left out."""
        screen = self.screens.plans
        if plans and self.tables:
            screen.print()
            for note in notes:
                screen.print(note, style="yellow")
            screen.print(self._table(plans, verbose))
            screen.print()
        for host in self._waiting_cards:  # a refusal belongs to its plan, where that is shown
            below = host in self.plans and self.tables and not screen.quiet
            (screen if below else self.screens.alarms).print(render.card(self.cards[host]))
        self._waiting_cards.clear()

    def _table(self, plans: list[Plan], verbose: bool) -> RenderableType:
        try:
            return render.plan_table(plans, verbose)
        except Exception:  # of one of them: the others are shown without it
            def sound(plan: Plan) -> bool:
                return self.contained(plan.host, lambda: render.plan_table([plan], verbose), later=True) is not None

            return render.plan_table(list(filter(sound, plans)), verbose)

    def show_commands(self, hosts: Iterable[Host]) -> None:
        """What each host's steps would run; once."""
        for host in hosts:
            if (rows := self.commands.get(host.name)) and host.name not in self._commands_shown:
                self._commands_shown.add(host.name)
                self.screens.plans.print(render.commands(host.name, [row[1:] for row in rows]), soft_wrap=True)

    def started(self, host: str, step: Step, changes: bool = True) -> None:
        """A step begins on a host, which it `changes`, or whose work there it does."""
        if changes:
            self.touched.add(host)
        self._running[host] = (step, time.monotonic())
        self._board.at(host, step.title)

    def running(self, host: str) -> Step | None:
        """The step that is changing a host now."""
        return self._running.get(host, (None, 0.0))[0]

    def said(self, host: str, lines: Iterable[str]) -> None:
        """Output of a command that failed inside a function; pyinfra keeps only that of its own commands."""
        self._output[host] += lines

    def under_way(self, host: str, seconds: float) -> None:
        """The step's work began that long before now, in an earlier run or another terminal: its time counts from
        then."""
        if host in self._running:
            step, since = self._running[host]
            self._running[host] = (step, min(since, time.monotonic() - seconds))

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
                  said=[what], link=True, status=exits.UNREACHABLE)

    def operation_started(self, host: Host) -> None:
        """Nothing is known yet of what the next operation does on this host."""
        self._board.rests(host.name)
        self._running.pop(host.name, None)
        self.jobs.pop(host.name, None)
        self._output.pop(host.name, None)

    def operation_succeeded(self, host: Host) -> None:
        """A line for a step that has changed a host; none where the operation changed nothing."""
        if host.name not in self._running:
            return
        step, since = self._running.pop(host.name)
        took = time.monotonic() - since
        self.applied[host.name].append(step)
        self.took[host.name][step.component] = took
        self._board.done(host.name, waits=not self.ahead)
        self.times.append((ledger.key(step, *self._memory.alike[host.name]), took))
        self.console.print(Text.assemble(
            "  ", (render.SYMBOL[step.action], render.STYLE[step.action]),
            f" {host.name}  {render.past(step)}: {step.now} → {step.wanted}  ({took:.0f} s)"))

    def operation_ended(self, state: State, last: bool) -> None:
        """All hosts are through with an operation."""
        self.failures(state)
        through = {host.name for host in adapter.hosts(state)} if last else set(self.cards)
        for act in self._after:
            act(state, through)
        for host in adapter.active(state) if last else ():
            self._look_again(host)

    def host_ended(self, state: State, host: Host) -> None:
        """A host is through with all operations, or has failed, ahead of others."""
        self.failures(state)
        for act in self._after:
            act(state, {host.name})
        if host in adapter.active(state):
            self._look_again(host)

    def after_operation(self, act: Callable[[State, Collection[str]], None]) -> None:
        """Call this when an operation ends: with the state, and the names of the hosts that are through with all of
        them, or have failed."""
        self._after.append(act)

    def _look_again(self, host: Host) -> None:
        """A host's run is over: probe it where a step changed it since the last probe, so that the ledger is true."""
        if self.applied[host.name] and host.name in self.plans and self._memory.remembered(host) is None:
            with suppress(*UNREAD):
                self._memory.context(host)

    def failures(self, state: State) -> None:
        """A card for each host whose operation failed and has none yet."""
        for failure in adapter.failures(state):
            if failure.host.name not in self.cards:
                self.contained(failure.host.name, partial(self._failed, failure))

    def _failed(self, failure: Failure) -> None:
        host = failure.host.name
        lines = [*failure.lines, *self._output[host]]
        ran = [shown(command) for command in failure.commands]  # secrets masked
        what = f"{failure.names} failed"
        if own := next((line for line in reversed(lines) if line.startswith(OWN)), ""):  # our own word for the cause
            what += f": {own.removeprefix(OWN)[:OWN_SHOWN]}"
        if not lines:
            what += ": the host said nothing (connection lost, or out of time)"
        last = _short(shown(failure.commands[-1], whole=False)) if ran else ""
        log = stumble.write(host, "\n".join([failure.names, "", *ran, "", *lines, ""]))
        login = shell_line(host, adapter.data(failure.host))
        remedy = f"mend what its last line names ({login}), then run the same command again" if lines else \
            "run the same command again: what was cut off is taken up where it stands"
        if wrong := self._spoilt(host):
            from qwen_rig.bundle import AGAIN
            self.fail(host, f"{failure.names} failed: the bundle {wrong}", AGAIN, command=last, log=log)
            return
        self.fail(host, what, remedy, said=lines, command=last, tail=tuple(folded(lines)[-TAIL:]), log=log)

    def stumbled(self, host: Host, error: Exception) -> None:
        """What we made of pyinfra's news of a host raised this: the host's card, and its end."""
        self.contained(host.name, partial(_raise, error))
        adapter.leave_out(host)


def _short(command: str, width: int = 160) -> str:
    one = " ".join(command.split())
    return one if len(one) <= width else one[: width - 1] + "…"


def _raise(error: Exception) -> None:
    raise error


def _words(error: Exception) -> tuple[str, str]:
    """What a card says of an exception, and what to do."""
    if isinstance(error, Flooded):
        return f"{error}: its connection was closed", \
            "log in and see what prints it (a start-up file of the shell's?), or leave the host out: --limit"
    if isinstance(error, Unanswered):
        return str(error), "log in and look at the start-up files of its shell (~/.bashrc: exit, exec?), at the " \
            "account's shell in /etc/passwd, at sshd's ForceCommand"
    if isinstance(error, ProbeFailed):
        return str(error), SEE_PROBE
    if isinstance(error, OSError) and error.filename:  # this machine's
        return f"{error.strerror}: {error.filename}", "mend that, and run the same command again"
    if isinstance(error, (*LOST, ConnectError)):
        return adapter.lost(error), "run the same command again"
    if isinstance(error, PyinfraError):
        return f"the probe failed: {error}", SEE_PROBE
    return f"qwen-rig failed on this host: {stumble.told(error)}", stumble.REMEDY
