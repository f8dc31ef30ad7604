"""What pyinfra's own command line calls: config.py joins the run here, before any host is dialled."""

from __future__ import annotations

import atexit
import gc
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from qwen_rig import homes, say
from qwen_rig.deploy import refuse_unknown_steps, watched
from qwen_rig.errors import RigError
from qwen_rig.run import adapter, beforehand, boundary, options, stumble
from qwen_rig.run.adapter import State
from qwen_rig.run.run import Run

if TYPE_CHECKING:
    from qwen_rig.plan import Context, Plan

COLLECT_AT = 50_000  # new containers; Python's own 700 is for programs that load little


def configure() -> None:
    """Refuse what can be refused now, and join the run that pyinfra is about to begin, to its very end."""
    _collect_seldom()
    say.begin()
    tell_in_a_line()
    boundary.fold()
    _or_exit(_refuse_bad_options)
    run = join(adapter.state_in_the_making(), Run(_make_plan, watched))
    atexit.register(_end, run)


def tell_in_a_line() -> None:
    """Have whatever ends pyinfra's command line told in a line, where that would print a traceback."""
    boundary.tell_in_a_line(_tell)


def _collect_seldom() -> None:
    """Have Python look for garbage among what is made from here on, and seldom: what it has loaded stays to the end,
    and looking through that again and again takes a tenth of a no-op run."""
    gc.freeze()
    gc.set_threshold(COLLECT_AT)


def _end(run: Run) -> None:
    """The last words of a run."""
    try:
        run.end(adapter.current_state())
    except Exception as error:
        say.err(f"qwen-rig: {stumble.ended_by(error, 'pyinfra')}")
    say.end()


def _tell(error: Exception, file: str) -> None:
    """One line of what ends pyinfra."""
    if isinstance(error, EOFError):  # behind a question that nobody answered
        say.err("")
    if isinstance(error, (RigError, SyntaxError)) or file:
        say.err(f"qwen-rig: {stumble.of_file(error, file)}")
    else:
        say.err(f"qwen-rig: {stumble.ended_by(error, 'pyinfra')}")


def join(state: State, run: Run) -> Run:
    """Make `run` the run of a state that isn't initialised yet."""
    adapter.attach(state, run)
    run.ender.install(run)
    adapter.spare_lookups()

    def ready() -> None:
        adapter.bind(state)
        adapter.guard(state)
        adapter.listen(state, lambda: run.report, run.probes.send if _looks() else None)
        _or_exit(lambda: beforehand.refuse_bad_connections(state))
        _refuse_bad_knobs(state)
        adapter.let_others_go_on(state)

    adapter.when_ready(state, ready, lambda inventory, arguments: _or_exit(
        lambda: options.refuse_nobody(inventory, arguments, adapter.command_line() or {})))
    return run


def _or_exit(act: Callable[[], None]) -> None:
    """Do it; a RigError is one line and the end."""
    try:
        act()
    except RigError as error:
        say.err(f"qwen-rig: {error}")
        sys.exit(1)


def _refuse_bad_options() -> None:
    """Check pyinfra's own options and --data where nothing has been touched. Raises RigError."""
    given = adapter.command_line() or {}
    options.refuse_bad(given)
    if adapter.deploys():
        homes.check()


def _refuse_bad_knobs(state: State) -> None:
    """One line and the end, before any host is dialled."""
    if _looks():
        _or_exit(lambda: beforehand.refuse_bad_knobs(state, refuse_unknown_steps))


def _looks() -> bool:
    """Whether this run looks at its hosts: our verbs do, and pyinfra with a deploy file, not `fact` or `exec`."""
    return adapter.command_line() is None or adapter.deploys()


def _make_plan(ctx: Context) -> Plan:
    """The plan for one host. The planners are loaded when the first host has answered, not before any is asked."""
    from qwen_rig.deploy.planning import make_plan
    return make_plan(ctx)
