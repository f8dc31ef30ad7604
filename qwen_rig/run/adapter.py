"""The one module that touches pyinfra's insides; it alone changes when pyinfra moves to asyncio and asyncssh.

Its public classes (operations, commands, hosts) are handed on from here, so that no other module of the package
imports pyinfra; facts/_fact.py, the base of the facts, is the exception.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from fnmatch import fnmatch
from functools import cache, partial
from typing import Any, Protocol, TypeVar

import click
from paramiko import PKey, SSHException, Transport
from pyinfra.api import FunctionCommand, QuoteString, StringCommand, connectors, operation, util
from pyinfra.api.exceptions import ConnectError, NoGroupError, PyinfraError
from pyinfra.api.host import Host
from pyinfra.api.inventory import Inventory
from pyinfra.api.state import BaseStateCallback, State, StateStage
from pyinfra.connectors.ssh import SSHConnector
from pyinfra.connectors.sshuserclient.client import get_host_keys
from pyinfra.connectors.util import CommandOutput
from pyinfra.context import ctx_host, ctx_state

from qwen_rig.frozen import frozen
from qwen_rig.ssh import private_key

from . import boundary
from .connector import BoundedSSH
from .limits import Overdue

__all__ = ["LOST", "CommandOutput", "ConnectError", "FunctionCommand", "Host", "PyinfraError", "QuoteString", "State",
           "StringCommand", "operation"]

# What a connection that breaks raises out of a command. Overdue, of a host that stalls or is gone, is an OSError; so
# is Hopeless, after which no other try makes sense.
LOST = (OSError, EOFError, SSHException)
T = TypeVar("T")
_RUN, _READY = "_qwen_rig_run", "_qwen_rig_ready"  # our attributes on pyinfra's State, one State a run


class Listener(Protocol):
    """What a run hears from pyinfra; called from every host's greenlet."""

    def connect_failed(self, host: Host, what: str) -> None: ...
    def operation_started(self, host: Host) -> None: ...
    def operation_succeeded(self, host: Host) -> None: ...
    def operation_ended(self, state: State, last: bool) -> None: ...
    def stumbled(self, host: Host, error: Exception) -> None: ...


@frozen
class Failure:
    """An operation that failed on one host: its names, the commands it ran, the lines they printed."""

    host: Host
    names: str
    commands: tuple[Any, ...]
    lines: tuple[str, ...]


# -- the run that belongs to a state --------------------------------------------------------------------


def attach(state: State, run: object) -> None:
    """Make `run` the run of this state."""
    setattr(state, _RUN, run)


def attached(state: State) -> Any:
    """The run of this state; None where there is none."""
    return getattr(state, _RUN, None)


def current_state() -> State | None:
    """The state that pyinfra is at work on, once it is initialised; None before."""
    state: State | None = ctx_state.get() if ctx_state.isset() else None
    return state if state is not None and getattr(state, "initialised", False) else None


def state_in_the_making() -> State:
    """The state that pyinfra's command line is about to initialise."""
    state: State = ctx_state.get()
    return state


def current_host() -> Host:
    """The host that is prepared, or executed on, in this greenlet."""
    host: Host = ctx_host.get()
    return host


@contextmanager
def on(state: State, host: Host) -> Iterator[None]:
    """Make a host the current one while the block runs, as in a thread of our own."""
    with ctx_state.use(state), ctx_host.use(host):
        yield


def when_ready(state: State, act: Callable[[], None],
               before: Callable[[Inventory, Mapping[str, Any]], None] | None = None) -> None:
    """Call `act` when pyinfra has initialised the state, and `before` with the inventory and init's other
    arguments just before.

    pyinfra empties handlers and hosts' data there, so whatever joins a run joins after that. In the order of asking.
    """
    asked: list[tuple[Any, Any]] | None = getattr(state, _READY, None)
    if asked is not None:
        asked.append((before, act))
        return
    asked = [(before, act)]
    setattr(state, _READY, asked)
    initialise = state.init

    def init(inventory: Inventory, *args: Any, **kwargs: Any) -> None:
        for early, _ in asked:
            if early is not None:
                early(inventory, kwargs)
        initialise(inventory, *args, **kwargs)
        for _, late in asked:
            late()

    state.init = init  # type: ignore[method-assign]


def listen(state: State, listener: Callable[[], Listener], reached: Callable[[Host], None] | None) -> None:
    """Tell a listener what happens in a state that is initialised; what it raises of one host is told to it, too.
    `reached`: told of each host when it is first connected."""

    def heard(host: Host, tell: Callable[[], None]) -> None:
        try:
            tell()
        except Exception as error:
            listener().stumbled(host, error)

    class Callbacks(BaseStateCallback):
        @staticmethod
        def host_connect(state: State, host: Host) -> None:
            if reached and state.current_stage == StateStage.Connect:  # later on, a connection is one made again
                host.connected = True  # pyinfra notes it after this, and would connect again for what is asked here
                heard(host, partial(reached, host))

        @staticmethod
        def host_connect_error(state: State, host: Host, error: Exception) -> None:
            heard(host, lambda: listener().connect_failed(host, str(error.args[0] if error.args else error)))

        @staticmethod
        def operation_host_start(state: State, host: Host, op_hash: str) -> None:
            heard(host, lambda: listener().operation_started(host))

        @staticmethod
        def operation_host_success(state: State, host: Host, op_hash: str, retry_count: int = 0) -> None:
            heard(host, lambda: listener().operation_succeeded(host))

        @staticmethod
        def operation_end(state: State, op_hash: str) -> None:
            listener().operation_ended(state, op_hash == state.get_op_order()[-1])

    state.add_callback_handler(Callbacks())


def guard(state: State) -> None:
    """Put the boundary (run/boundary.py) between pyinfra and every host of a state that is initialised."""
    boundary.settle()
    for host in state.inventory:
        boundary.guard(host)


def matching(inventory: Inventory, pattern: str) -> list[Host]:
    """The hosts that a word of --limit or --exclude means: a group's, or those whose names it fits."""
    try:
        return list(inventory.get_group(pattern))
    except NoGroupError:
        return [host for host in inventory if fnmatch(host.name, pattern)]


# -- hosts of a state ------------------------------------------------------------------------------------


def bind(state: State) -> None:
    """Reach every host by SSH that is bounded (run/connector.py) in place of pyinfra's own."""
    for host in state.inventory:
        if type(host.connector) is SSHConnector:
            data, host.connector = host.connector.data, BoundedSSH(state, host)
            host.connector.data = data


def hosts(state: State) -> list[Host]:
    """All hosts of the inventory, in its order."""
    return list(state.inventory)


def taking_part(state: State) -> list[Host]:
    """Those that --limit leaves."""
    return [host for host in state.inventory if state.is_host_in_limit(host)]


def active(state: State) -> list[Host]:
    """Those that are connected and haven't failed."""
    return list(state.inventory.get_active_hosts())


def named(state: State, name: str) -> Host:
    """The host of that name; KeyError-like NoHostError where there is none."""
    return state.inventory.get_host(name)


def leave_out(host: Host) -> None:
    """Leave a host out of the rest of the run; it counts as failed, the others go on."""
    host.state.fail_hosts({host.state.inventory.get_host(host.name)})


def data(host: Host) -> dict[str, Any]:
    """All data of a host, groups and all.py included."""
    found: dict[str, Any] = host.data.dict()
    return found


def data_by_source(host: Host) -> list[dict[str, Any]]:
    """The same, source by source, the weakest first: all.py, the groups, the host, --data."""
    return [dict(each() if callable(each) else each) for each in reversed(host.data.datas)]


def failures(state: State) -> Iterator[Failure]:
    """Each operation that has failed, host by host."""
    for host, operations in state.ops.items():
        for op_hash, op in operations.items():
            meta = op.operation_meta
            if meta.is_complete() and not meta.did_succeed():
                yield Failure(host, ", ".join(state.get_op_meta(op_hash).names), tuple(meta._commands or ()),
                              tuple(meta.stdout_lines + meta.stderr_lines))


def let_others_go_on(state: State) -> None:
    """Let one host's failure stop no other.

    Without -y pyinfra sets FAIL_PERCENT to 0 and asks, which drops every host where there is no terminal to ask on. A
    user's own --fail-percent stands.
    """
    options = command_line()
    if options is None or options.get("fail_percent") is None:
        state.config.FAIL_PERCENT = None


def command_line() -> dict[str, Any] | None:
    """The options of pyinfra's own command line; None where this process isn't run by it."""
    context = click.get_current_context(silent=True)
    return None if context is None else dict(context.params)


def deploys() -> bool:
    """Whether pyinfra's own command line was given a deploy file; not for `fact`, `exec` and `debug-inventory`."""
    return any(str(name).endswith(".py") for name in (command_line() or {}).get("operations") or ())


def by_ssh(host: Host) -> bool:
    """Whether a host is reached by SSH: not @local, nor a container."""
    return isinstance(host.connector, SSHConnector)


def spare_lookups() -> None:
    """Make pyinfra look up two things once, or not at all, that it looks up for each host. Nothing else changes.

    For the order of the operations pyinfra reads the call stack, and the source text of every frame of the stack, on
    each host and for each operation, but uses file and line number only. For each host pyinfra searches all installed
    distributions for its connectors. Together: a tenth of a no-op run on one host, and more on many.
    """
    util.stack = partial(inspect.stack, 0)
    util.getframeinfo = partial(inspect.getframeinfo, context=0)
    if not hasattr(connectors.entry_points, "cache_info"):
        connectors.entry_points = cache(connectors.entry_points)


# -- a host's connection ---------------------------------------------------------------------------------


def transport(host: Host) -> Transport | None:
    """The SSH connection of a host; None where it is this machine, or a connection of another kind."""
    client = getattr(host.connector, "client", None)
    found: Transport | None = client.get_transport() if client is not None else None
    return found


def host_key(host: Host) -> PKey | None:
    """The key by which the host of this connection has proven itself; None where it is a connection of another kind."""
    found = transport(host)
    return found.get_remote_server_key() if found is not None and found.is_active() else None


def connected(host: Host) -> bool:
    """Whether the connection stands; true also where it is none that could break (@local)."""
    client = getattr(host.connector, "client", None)
    if client is None:
        return True
    found = client.get_transport()
    return bool(found and found.is_active())


def lost(error: BaseException) -> str:
    """One of LOST in words: `connection lost: …`; a host that is late may still be there."""
    return str(error) if isinstance(error, Overdue) else f"connection lost: {str(error) or type(error).__name__}"


def connect_again(host: Host) -> bool:
    """Connect anew, and say whether it worked."""
    client = getattr(host.connector, "client", None)
    if client is not None:
        client.close()  # pyinfra's disconnect leaves the old client open
    host.disconnect()
    get_host_keys.cache.clear()  # else any key would do for a host first met in this run
    host.connect(show_errors=False)
    return bool(host.connected)


def knows_sudo_password(host: Host) -> bool:
    """Whether the inventory names this host's sudo password."""
    return bool(host.connector_data.get(boundary.SECRET) or host.data.get("_sudo_password"))


def as_user() -> dict[str, Any]:
    """Arguments by which something runs as the SSH user, whatever a host's data and a config say: env and caches are
    the SSH user's."""
    return {"_sudo": False, "_sudo_user": "", "_su_user": "", "_doas": False, "_dzdo": False}


def sudo(host: Host, arguments: dict[str, Any], wanted: bool) -> dict[str, Any]:
    """Connector arguments for a command that a function runs by itself, with sudo where that is wanted."""
    return arguments | ({"_sudo": True, "_sudo_password": host.data.get("_sudo_password")} if wanted else {})


def execute(host: Host, command: StringCommand, as_root: bool = False) -> tuple[bool, str, list[str]]:
    """Run one command now (inside a FunctionCommand): (whether it succeeded, its stdout, all lines that it printed).

    Raises what LOST names where the connection breaks.
    """
    arguments = sudo(host, dict(command.connector_arguments), as_root)
    command.connector_arguments = {}
    good, output = host.run_shell_command(command, **arguments)
    return good, output.stdout, list(output.output_lines)


def fact(host: Host, kind: type[Any], **arguments: Any) -> Any:
    """A fact of a host, without sudo: facts need none, whatever the operation around them uses.

    Raises what broke the connection, where pyinfra says nothing and gives the fact's default.
    """
    found = host.get_fact(kind, **as_user(), _ignore_errors=True, **arguments)
    if failure := getattr(host.connector, "failure", None):
        raise failure
    return found


def begun(host: Host, ask: Callable[[], T]) -> Callable[[], T]:
    """Begin something that asks one host one thing; what comes back has its outcome, and waits for it. Where the host
    isn't reached by SSH, nothing is asked before that."""

    def asking() -> T:
        with on(host.state, host):
            return ask()

    return host.connector.begun(asking) if isinstance(host.connector, BoundedSSH) else ask


def keep_secrets(state: State, secrets: Mapping[str, Mapping[str, str]]) -> None:
    """Put each host's secrets where no output of pyinfra's shows them: `debug-inventory` prints all host data."""
    for name, given in secrets.items():
        host = state.inventory.get_host(name)
        if "_sudo_password" in given:
            host.connector_data[boundary.SECRET] = given["_sudo_password"]
        if "ssh_password" in given:
            host.connector.data["ssh_password"] = given["ssh_password"]
        if "ssh_key_password" in given:
            path = host.data.ssh_key
            state.private_keys[path] = private_key(path, given["ssh_key_password"])
