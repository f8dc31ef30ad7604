"""pyinfra's stages, driven from a process of our own: what its command line does, without its prompts and its words.

Importing this module patches the standard library for gevent, as pyinfra's command line does.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import pyinfra_cli  # noqa: F401  it patches the standard library, so it stands before the rest of pyinfra

import pyinfra  # isort: skip
from gevent import joinall, spawn  # type: ignore[import-untyped]
from pyinfra.api import Config, State
from pyinfra.api.connect import connect_all, disconnect_all
from pyinfra.api.exceptions import PyinfraError
from pyinfra.api.host import Host
from pyinfra.api.inventory import Inventory
from pyinfra.api.operations import run_host_op, run_ops
from pyinfra.api.state import StateStage
from pyinfra.context import ctx_config, ctx_host, ctx_inventory, ctx_state
from pyinfra_cli.exceptions import UnexpectedExternalError
from pyinfra_cli.inventory import make_inventory
from pyinfra_cli.util import load_deploy_file

from qwen_rig.errors import RigError

from . import adapter, stumble

__all__ = ["connect", "disconnect", "execute", "execute_ahead", "look", "prepare", "ready", "side_by_side",
           "state"]


def state(folder: str, verbose: bool) -> State:
    """A state of pyinfra's for a project's folder; nothing is read or dialled yet."""
    pyinfra.is_cli = True  # deploy files are written for pyinfra's command line: order by line, as there
    logging.getLogger("pyinfra").addHandler(logging.NullHandler())  # its words; ours are in report.py
    logging.getLogger("pyinfra").propagate = False
    if folder not in sys.path:
        sys.path.append(folder)
    made = State(check_for_changes=False)  # the plan tells what changes; pyinfra needs not run it all to find out
    made.cwd, made.print_noop_info = folder, verbose
    ctx_state.set(made)
    return made


def ready(state: State, inventory: str, override: Mapping[str, Any], limit: Sequence[str]) -> None:
    """Read the inventory and initialise the state. Raises RigError where --limit names nobody."""
    config = Config()
    ctx_config.set(config)
    try:
        made = make_inventory(inventory, cwd=state.cwd, override_data=dict(override))
    except RigError:
        raise
    except (SyntaxError, UnexpectedExternalError) as error:
        raise stumble.of_file(error, inventory) from None
    ctx_inventory.set(made)
    state.init(made, config, initial_limit=_limited(made, limit))


def connect(state: State) -> None:
    """Connect to every host; those that can't be reached are left out, each with its callback."""
    state.set_stage(StateStage.Connect)
    _unless_nobody_is_left(state, lambda: connect_all(state))


def prepare(state: State, deploy_file: str) -> None:
    """Load a deploy file for every connected host."""
    if state.active_hosts:
        state.set_stage(StateStage.Prepare)
        _unless_nobody_is_left(state, lambda: load_deploy_file(state, deploy_file))


def execute(state: State) -> None:
    """Run what was declared, on the hosts that are left: each step on all hosts before the next."""
    state.set_stage(StateStage.Execute)
    _unless_nobody_is_left(state, lambda: run_ops(state))


def execute_ahead(state: State, contained: Callable[[Host, Callable[[], Any]], Any],
                  ended: Callable[[Host], None]) -> None:
    """The same, but no host waits for another at a step's end. `contained` does something of a host and brings back
    None where that raises; `ended` hears of each host that is through, or has failed."""
    state.set_stage(StateStage.Execute)
    state.is_executing = True
    order = state.get_op_order()

    def all_of(host: Host) -> None:
        with ctx_host.use(host):
            good = all(contained(host, partial(run_host_op, state, host, op_hash)) for op_hash in order)
            if not good:
                with suppress(PyinfraError):  # it was the last one
                    state.fail_hosts({host})
            contained(host, partial(ended, host))

    with ctx_state.use(state):
        joinall([spawn(all_of, host) for host in list(state.inventory.get_active_hosts())])


def side_by_side(state: State) -> bool:
    """Whether pyinfra's limits let all hosts be at work at once."""
    return len(state.active_hosts) <= int(state.config.PARALLEL or 0)


def look(state: State, see: Callable[[Host], Any]) -> list[Any]:
    """What `see` makes of each connected host, side by side."""
    state.set_stage(StateStage.Prepare)
    return list(state.pool.map(see, list(state.inventory.get_active_hosts())))


def work(state: State, do: Callable[[Host], Any]) -> list[Any]:
    """What `do` makes of each connected host, side by side, in a stage in which hosts are worked on."""
    state.set_stage(StateStage.Execute)
    state.is_executing = True
    return list(state.pool.map(do, list(state.inventory.get_active_hosts())))


def disconnect(state: State) -> None:
    """Close all connections."""
    state.set_stage(StateStage.Disconnect)
    disconnect_all(state)


def _unless_nobody_is_left(state: State, act: Callable[[], Any]) -> None:
    """Do it; pyinfra raises where no host is left, and by then each has its card."""
    try:
        act()
    except PyinfraError:
        if state.active_hosts:
            raise


def _limited(inventory: Inventory, limit: Sequence[str]) -> list[Any] | None:
    """The hosts that --limit means; None without one."""
    if not limit:
        return None
    chosen: list[Any] = []
    for pattern in limit:
        hosts = adapter.matching(inventory, pattern)
        if not hosts:
            names = ", ".join(host.name for host in inventory)
            raise RigError(f"no host or group {pattern!r}", "--limit", f"there are: {names}")
        chosen += [host for host in hosts if host not in chosen]
    return chosen
