"""The one operation that all steps are made of: decide by the plan, then run the step's commands or say why not."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from typing import Any

from paramiko import SSHException
from pyinfra.api import FunctionCommand, QuoteString, StringCommand, operation
from pyinfra.api.host import Host
from pyinfra.api.state import State
from pyinfra.context import ctx_state
from pyinfra.context import host as current_host

from qwen_rig.plan import Context, Step
from qwen_rig.program import Call
from qwen_rig.run import report as _report
from qwen_rig.run import session as _session
from qwen_rig.run.command_text import shown
from qwen_rig.run.connection import connected

Commands = Callable[[Context, Step], Iterator[StringCommand | FunctionCommand]]


@operation()
def _apply(component: str, commands: Commands) -> Generator[StringCommand | FunctionCommand, None, None]:
    """Bring one component to what the plan wants.

    pyinfra runs this generator in prepare and again in execute: the plan is read anew each time, so a step whose
    need arises in mid-run (a reboot after a driver) acts, and one whose need is gone says so.
    """
    try:
        step = _session.step(current_host, component)
    except _session.ProbeFailed as error:
        yield FunctionCommand(_unread, (str(error),), {})
        return
    if not step.action.changes:
        current_host.noop(f"{step.title}: {step.why}")
        return
    _report.started(current_host.name, step)
    ctx = _session.context(current_host)
    yield from commands(ctx, step)
    _session.forget(current_host, known=ctx)


def _unread(state: State, host: Host, why: str) -> bool:
    """Fail this host alone: how it stands in mid-run could not be read."""
    _report.fail(host.name, f"its state could not be read before this step: {why}", "run the same command again")
    return False


def converge(component: str, title: str, commands: Commands, root: bool = False) -> None:
    """Declare the step for the current host. `root`: its commands take root (sudo is used where we aren't)."""
    sudo = root and _session.context(current_host).machine.sudo not in ("root", "none", "locked")
    arguments: dict[str, Any] = {"_sudo": True} if sudo else {}
    if ctx_state.get().print_noop_info and _session.plan(current_host).step_changes(component):  # -v
        step = _session.step(current_host, component)
        lines = [shown(command) for command in commands(_session.context(current_host), step)]
        _report.commands[current_host.name].append((component, title, lines))
    _apply(name=title, component=component, commands=commands, **arguments)


class ScriptCommand(StringCommand):
    """A short program on the host as a command of an operation."""

    def __init__(self, call: Call, seconds: int, stdin: str = "") -> None:
        limit = ("timeout", "-k", "30", str(seconds))
        extra: dict[str, Any] = {"_timeout": seconds + 60}
        if given := call.stdin(stdin):
            extra["_stdin"] = given
        super().__init__(*limit, "sh", "-c", QuoteString(call.text), **extra)
        self.call, self.limit = call, " ".join(limit)


def script(call: Call, seconds: int, stdin: str = "") -> ScriptCommand:
    """A short program to run on the host, under a time limit there and a longer one here; what can take more than a
    minute is a job (qwen_rig/run/job.py).

    pyinfra's own limit leaves the remote process running, so `timeout` ends it on the host.
    """
    return ScriptCommand(call, seconds, stdin)


def with_sudo(host: Host, arguments: dict[str, Any], sudo: bool) -> dict[str, Any]:
    """Connector arguments for a command that a function runs by itself, with sudo where that is wanted."""
    return arguments | ({"_sudo": True, "_sudo_password": host.data.get("_sudo_password")} if sudo else {})


def run(host: Host, call: Call, seconds: int, sudo: bool = False) -> tuple[bool, str]:
    """Run a program now (inside a FunctionCommand) and bring back (whether it succeeded, its stdout)."""
    command = script(call, seconds)
    arguments = with_sudo(host, dict(command.connector_arguments), sudo)
    command.connector_arguments = {}
    if not connected(host):  # paramiko would be asked for a session of none
        _report.said(host.name, ["connection lost"])
        return False, ""
    try:
        ok, output = host.run_shell_command(command, **arguments)
    except (TimeoutError, OSError, EOFError, SSHException) as error:  # pyinfra would print a function's traceback
        _report.said(host.name, [f"connection lost: {str(error) or type(error).__name__}"])
        return False, ""
    if not ok:
        _report.said(host.name, output.output_lines + ([] if connected(host) else ["connection lost"]))
    return ok, output.stdout
