"""The one operation that all steps are made of: decide by the plan, then run the step's commands or say why not."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from typing import Any

from qwen_rig.frozen import frozen
from qwen_rig.plan import Context, Step
from qwen_rig.program import Call

from . import adapter
from .adapter import LOST, CommandOutput, FunctionCommand, Host, QuoteString, State, StringCommand
from .command_text import shown
from .contain import operation
from .limits import Hopeless
from .memory import ProbeFailed
from .run import Run

Claim = Callable[[Host, str], bool]
Commands = Callable[[Run, Context, Step], Iterator[StringCommand | FunctionCommand]]


@operation()
def _apply(component: str, commands: Commands,
           claim: Claim | None = None) -> Generator[StringCommand | FunctionCommand, None, None]:
    """Bring one component to what the plan wants.

    pyinfra runs this generator in prepare and again in execute: the plan is read anew each time, so a step whose
    need arises in mid-run (a reboot after a driver) acts, and one whose need is gone says so.
    """
    host = adapter.current_host()
    run = Run.of(host)
    try:
        step = run.memory.step(host, component)
    except ProbeFailed as error:
        yield FunctionCommand(_unread, (str(error),), {})
        return
    if claim and step.action.changes:
        yield FunctionCommand(_claimed, (claim, component), {})
        step = run.memory.step(host, component)  # another run may have written there meanwhile
    if not step.action.changes:
        run.past[host.name].add(component)
        host.noop(f"{step.title}: {step.why}")
        return
    if host.state.is_executing:
        run.report.started(host.name, step)
    ctx = run.memory.context(host)
    yield from commands(run, ctx, step)
    run.past[host.name].add(component)
    run.memory.forget(host, known=ctx)


def _claimed(state: State, host: Host, claim: Claim, component: str) -> bool:
    return claim(host, component)


def _unread(state: State, host: Host, why: str) -> bool:
    """Fail this host alone: how it stands in mid-run could not be read."""
    Run.of(host).report.fail(host.name, f"the host's state could not be read before this step: {why}",
                             "run the same command again")
    return False


@frozen
class Applier:
    """The commands of one step: what its folder's apply.py offers. `title`: for pyinfra; `root`: they take root (sudo
    is used where we aren't); `claim`: what waits until the step may write, and says whether it may."""

    title: str
    commands: Commands
    root: bool = False
    claim: Claim | None = None


def converge(name: str, applier: Applier) -> None:
    """Declare a step for the current host, unless it is in no plan of the host's."""
    host = adapter.current_host()
    run = Run.of(host)
    plan, ctx = run.memory.plan(host), run.memory.context(host)
    step = next((step for step in plan.steps if step.component == name), None)
    if step is None:
        return
    sudo = applier.root and ctx.machine.sudo not in ("root", "none", "locked")
    arguments: dict[str, Any] = {"_sudo": True} if sudo else {}
    if host.state.print_noop_info and step.action.changes:  # -v
        lines = [shown(command) for command in applier.commands(run, ctx, step)]
        run.report.commands[host.name].append((name, applier.title.partition(" | ")[2], lines))
    _apply(name=applier.title, component=name, commands=applier.commands, claim=applier.claim,
           **arguments)


class ScriptCommand(StringCommand):
    """A short program on the host as a command of an operation."""

    def __init__(self, call: Call, seconds: int, stdin: str = "") -> None:
        limit = ("timeout", "-k", "30", str(seconds))
        extra: dict[str, Any] = {"_timeout": seconds + 60}
        if given := call.stdin(stdin):
            extra["_stdin"] = given
        super().__init__(*limit, "sh", "-c", QuoteString(call.text), **extra)
        self.call, self.limit = call, " ".join(limit)

    def execute(self, state: State, host: Host, connector_arguments: Any) -> tuple[bool, CommandOutput]:
        """Run; a connection that breaks, and whatever else is raised, fails this host alone."""
        report, execute = Run.of(host).report, super().execute

        def run() -> tuple[bool, CommandOutput]:
            try:
                done: tuple[bool, CommandOutput] = execute(state, host, connector_arguments)
                return done
            except Hopeless:
                raise
            except LOST as error:
                report.said(host.name, [adapter.lost(error)])
                return False, CommandOutput([])

        return report.contained(host.name, run) or (False, CommandOutput([]))


def script(call: Call, seconds: int, stdin: str = "") -> ScriptCommand:
    """A short program to run on the host, under a time limit there and a longer one here; what can take more than a
    minute is a job (run/job.py).

    pyinfra's own limit leaves the remote process running, so `timeout` ends it on the host.
    """
    return ScriptCommand(call, seconds, stdin)


def run_script(host: Host, call: Call, seconds: int, sudo: bool = False) -> tuple[bool, str]:
    """Run a program now (inside a FunctionCommand) and bring back (whether it succeeded, its stdout)."""
    report = Run.of(host).report
    if not adapter.connected(host):  # paramiko would be asked for a session of none
        report.said(host.name, ["connection lost"])
        return False, ""
    try:
        ok, output, lines = adapter.execute(host, script(call, seconds), sudo)
    except Hopeless:
        raise
    except LOST as error:  # pyinfra would print a function's traceback
        report.said(host.name, [adapter.lost(error)])
        return False, ""
    if not ok:
        report.said(host.name, lines + ([] if adapter.connected(host) else ["connection lost"]))
    return ok, output
