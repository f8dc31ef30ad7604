"""What the user is told during and after a run: lines as steps finish, a card per failed host, a report at the end.

`install()` is called by config.py, before any host is dialled, so that hosts which can't be reached get a card too.
All of it goes to standard error, as pyinfra's own words do; standard output stays pure for --json.
"""

from __future__ import annotations

import atexit
import sys
import time
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import click
from paramiko import SSHException
from pyinfra.api.exceptions import PyinfraError
from pyinfra.api.host import Host
from pyinfra.api.state import BaseStateCallback, State
from pyinfra.context import ctx_state
from rich.text import Text

from qwen_rig import doctor, exits, ledger, render
from qwen_rig.deploy.training.plan import TrainingPayload
from qwen_rig.errors import RigError
from qwen_rig.plan import Plan, Step
from qwen_rig.plan.compare import differences, traits
from qwen_rig.plan.drift import snapshot
from qwen_rig.render import Card
from qwen_rig.run import progress as _board
from qwen_rig.run import session as _session
from qwen_rig.run.command_text import shown
from qwen_rig.run.connection import expected
from qwen_rig.ssh import shell_line

LOGS = Path.home() / ".cache" / "qwen-rig" / "logs"
TAIL = 15  # lines of a failing command that a card shows

plans: dict[str, Plan] = {}
states: dict[str, dict[str, Any]] = {}  # what each plan was made from (qwen_rig/plan/drift.py)
cards: dict[str, Card] = {}
applied: dict[str, list[Step]] = defaultdict(list)
caveats: dict[str, list[str]] = defaultdict(list)
outcomes: dict[str, tuple[str, str]] = {}  # what a run came to that is none of steps: a word, and what
commands: dict[str, list[tuple[str, str, list[str]]]] = defaultdict(list)  # component, title, lines: with -v
_times: list[tuple[str, float]] = []  # what steps took, for the ledger
_below: list[str] = []  # hosts whose cards wait for the plans to be shown
_told: set[str] = set()  # hosts whose commands were shown
_touched: set[str] = set()  # hosts that a step of this run has begun to change
_running: dict[str, tuple[Step, float]] = {}
_output: dict[str, list[str]] = defaultdict(list)
console = render.console()
tables = True  # False: plans are told otherwise, as JSON


def fail(host: str, what: str, remedy: str = "", later: bool = False, said: Iterable[str] | None = None,
         alone: bool = False, **more: Any) -> None:
    """Put a card on record for a host and show it, now or below the plans; a host gets one card, its first.

    What the host `said` goes to the doctor: his next step is then the card's, and `remedy` what there is without him.
    `alone`: the host was probed just now, so that its state may tell the cause where its words don't.
    """
    if host not in cards:
        found = doctor.diagnose(said, _session.last_state(host), alone) if said is not None else None
        if found:
            remedy, more["cause"] = found.next, f"{found.cause} ({found.name})"
        cards[host] = Card(host, what, remedy, **more)
        if later:
            _below.append(host)
        else:
            console.print(render.card(cards[host]))


def show(shown: list[Plan], notes: list[str], verbose: bool) -> None:
    """The plans of all hosts as one table, its last line the cost; below it the cards of those left out."""
    if shown and tables:
        console.print()
        for note in notes:
            console.print(note, markup=False, style="yellow")
        console.print(render.plan_table(shown, verbose))
        console.print()
    for host in _below:
        console.print(render.card(cards[host]))


def show_commands(hosts: list[Host]) -> None:
    """What each host's steps would run; once."""
    for host in hosts:
        if (rows := commands.get(host.name)) and host.name not in _told:
            _told.add(host.name)
            console.print(render.commands(host.name, [row[1:] for row in rows]), soft_wrap=True)


def started(host: str, step: Step) -> None:
    """A step begins to change a host."""
    _touched.add(host)
    _running[host] = (step, time.monotonic())
    _board.at(host, step.title)


def said(host: str, lines: list[str]) -> None:
    """Output of a command that failed inside a function; pyinfra keeps only that of its own commands."""
    _output[host] += lines


def under_way(host: str, seconds: float) -> None:
    """The step's work began that long ago, in an earlier run or another terminal: it counts as this step's time."""
    if host in _running:
        step, since = _running[host]
        _running[host] = (step, since - seconds)


class Reporter(BaseStateCallback):
    """pyinfra's hook for a live view; its methods are called from every host's greenlet."""

    @staticmethod
    def host_connect_error(state: State, host: Host, error: Exception) -> None:
        what = str(error.args[0] if error.args else error)
        if expected(host.name, what):
            return
        remedy = "check address, port, user and key in the inventory"
        shown, _, accepting = what.partition("; to accept it: ")  # qwen_rig/hostkeys.py
        if accepting:
            what, remedy = f"{shown})", accepting.rstrip(")")
        elif "EOF when reading a line" in what:  # pyinfra asks about a jump host's key, and there's nobody to answer
            what = "its jump host (ProxyJump) isn't in known_hosts"
            remedy = f"log in by hand once and say yes: {shell_line(host.name, host.data.dict())}"
        fail(host.name, f"could not connect: {what.removeprefix('Could not connect ').strip('()')}", remedy,
             said=[what], status=exits.UNREACHABLE)

    @staticmethod
    def operation_host_start(state: State, host: Host, op_hash: str) -> None:
        _running.pop(host.name, None)
        _output.pop(host.name, None)

    @staticmethod
    def operation_host_success(state: State, host: Host, op_hash: str, retry_count: int = 0) -> None:
        if host.name not in _running:
            return
        step, since = _running.pop(host.name)
        took = time.monotonic() - since
        applied[host.name].append(step)
        _board.done(host.name)
        _times.append((ledger.key(step, *_session.alike[host.name]), took))
        console.print(Text.assemble("  ", (render.SYMBOL[step.action], render.STYLE[step.action]), f" {host.name}  ",
                                    f"{render.past(step)}: {step.now} → {step.wanted}  ({took:.0f} s)"))

    @staticmethod
    def operation_end(state: State, op_hash: str) -> None:
        failures(state)
        if op_hash == state.get_op_order()[-1]:
            _look_again(state)


def _look_again(state: State) -> None:
    """The run is over: probe what it changed and did not probe since, so that the ledger holds what is true."""
    for host in state.inventory.get_active_hosts():
        if applied[host.name] and host.name in plans and _session.remembered(host) is None:
            with suppress(_session.ProbeFailed, PyinfraError, OSError, SSHException):
                _session.context(host)


def _keep(state: State) -> None:
    """Put on record how each host was left, and what its steps took."""
    when = now()
    for host in state.inventory:
        ctx, where = _session.remembered(host), _session.address(host)
        if host.name in cards and (applied[host.name] or host.name in _touched):
            ledger.forget(host.name, where)
        elif host.name in plans and host.name not in cards and ctx:
            ledger.remember(host.name, where, when, snapshot(ctx))
    if _times:
        ledger.timed(_times)


def now() -> str:
    """The time, in UTC, as ISO 8601 has it."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def progress(host: str, what: str) -> None:
    """How far a long step is: on the board of a terminal, else a plain line."""
    step, _ = _running.get(host, (None, 0.0))
    line = f"{step.title}: {what}" if step else what
    if not _board.at(host, line):
        console.print(f"    {host}  {line}", markup=False)


def failures(state: State) -> None:
    """A card for each host whose operation failed and has none yet."""
    for host, ops in state.ops.items():
        if host.name in cards:
            continue
        for op_hash, op in ops.items():
            meta = op.operation_meta
            if meta.is_complete() and not meta.did_succeed():
                names = ", ".join(state.get_op_meta(op_hash).names)
                lines = meta.stdout_lines + meta.stderr_lines + _output[host.name]
                ran = list(meta._commands or [])
                what = f"{names} failed"
                if not lines:
                    what += ": the host said nothing (connection lost, or out of time)"
                fail(host.name, what, "read the log, mend the cause, run the same command again", said=lines,
                     command=_short(shown(ran[-1], whole=False)) if ran else "", tail=tuple(lines[-TAIL:]),
                     log=_log(host.name, names, [shown(command) for command in ran], lines))


def _short(command: str, width: int = 160) -> str:
    one = " ".join(command.split())
    return one if len(one) <= width else one[: width - 1] + "…"


def _log(host: str, names: str, commands: list[str], lines: list[str]) -> str:
    """Write what a failing operation ran (secrets masked) and said; returns the path, or '' if it can't."""
    path = LOGS / f"{time.strftime('%Y%m%d-%H%M%S')}-{host}.log"
    try:
        LOGS.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join([names, "", *commands, "", *lines, ""]))
    except OSError:
        return ""
    return str(path)


def end() -> None:
    """The last words, whichever way pyinfra left."""
    state = ctx_state.get() if ctx_state.isset() else None
    if state is None or not getattr(state, "initialised", False):
        return
    failures(state)
    if state.is_executing:
        _keep(state)
    elif commands:
        show_commands(list(state.inventory))
    if not state.is_executing and not cards:
        for line in render.caveat_lines(_unlike(state)):
            console.print(line)
        return
    rows = []
    for host in filter(state.is_host_in_limit, state.inventory):
        name, done = host.name, applied[host.name]
        if name in cards:
            rows.append((name, "✗ failed", cards[name].what))
        elif name in outcomes:
            rows.append((name, *outcomes[name]))
        elif state.is_executing:
            words = ", ".join(render.past(s) for s in done) or "nothing to do"
            rows.append((name, "✓ changed" if done else "✓ no change", words))
        elif name in plans:
            rows.append((name, "✓ planned", f"{len(plans[name].changes)} steps would change it"))
    console.print()
    said = [f"{n}: {c}" for n, cs in caveats.items() for c in cs] + _unlike(state)
    console.print(render.report(rows, said))
    if after := _next(state):  # whole lines, however narrow the terminal: they are to be copied
        console.print(Text("\n".join(["Next:", *(f"  {line}" for line in after)])), soft_wrap=True)


def _unlike(state: State) -> list[str]:
    """Which hosts are unlike the others, of those whose state is known and which came through."""
    known = {host.name: traits(ctx) for host in state.inventory
             if host.name not in cards and (ctx := _session.remembered(host)) is not None}
    return differences(known)


def _next(state: State) -> list[str]:
    """Commands worth copying after this run, for the first host that came through."""
    for host in state.inventory:
        plan = plans.get(host.name)
        if state.is_executing and plan and host.name not in cards and _has(plan, "training"):
            made = plan.step("training").need(TrainingPayload)
            login, env = shell_line(host.name, host.data.dict()), made.env
            return [f"{login} cat {env}/.rig/verify.json", f"{login} {env}/bin/python {env}/.rig/train_qwen.py --help",
                    *([f"qwen-rig fits {host.name}      # {made.fits} (estimates)"] if made.fits else [])]
    return []


def _has(plan: Plan, component: str) -> bool:
    return any(step.component == component for step in plan.steps)


def install() -> None:
    """Hook into the run that pyinfra's own command line is about to begin, to its very end."""
    hook(ctx_state.get())
    atexit.register(end)


def _refuse_bad_knobs(state: State) -> None:
    """One line and the end, before any host is dialled; but not where no deploy is run (`fact`, `exec`)."""
    given = click.get_current_context(silent=True)
    if given is not None and not any(str(name).endswith(".py") for name in given.params.get("operations") or ()):
        return
    try:
        _session.refuse_bad_knobs(state)
    except RigError as error:
        print(f"qwen-rig: {error}", file=sys.stderr)
        sys.exit(1)


def hook(state: State) -> None:
    """Join a run. pyinfra's state drops handlers when initialised: so after that."""
    initialise = state.init

    def init(*args: Any, **kwargs: Any) -> None:
        if kwargs.get("initial_limit") == []:  # pyinfra would go on, do nothing, and call that a success
            print("qwen-rig: --limit and --exclude leave no host · give each name its own --limit, as the inventory "
                  "spells it; * stands for any letters", file=sys.stderr)
            sys.exit(1)
        initialise(*args, **kwargs)
        state.add_callback_handler(Reporter())
        _refuse_bad_knobs(state)
        # One host that is down or fails must not stop the others. Without -y pyinfra sets 0 per cent and asks,
        # which with no terminal to ask on drops every host.
        given = click.get_current_context(silent=True)
        if given is None or given.params.get("fail_percent") is None:
            state.config.FAIL_PERCENT = None

    state.init = init  # type: ignore[method-assign]
