"""One run's memory: each host's state (probed once, dropped when something changes it) and the plan made from it.

pyinfra 3.10 caches no fact, in prepare or in execute: this memo is what makes a converged run one exec per host.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import cache
from itertools import count
from typing import Any

from packaging.version import Version
from paramiko import SSHException
from pyinfra.api.exceptions import PyinfraError
from pyinfra.api.host import Host
from pyinfra.api.state import State

from qwen_rig import knobs as knobs_of
from qwen_rig import ledger
from qwen_rig.catalog.rules import load_rules
from qwen_rig.certificate import store
from qwen_rig.facts.probe import HostState
from qwen_rig.flash import cache as wheels
from qwen_rig.knobs import Knobs
from qwen_rig.managed import watched
from qwen_rig.plan import Context, Plan, Step, make_context, make_plan
from qwen_rig.run.connection import connected, reconnected, refused

_contexts: dict[str, Context] = {}
_plans: dict[str, tuple[Context, Plan]] = {}  # each plan with what it was made from
_last: dict[str, Mapping[str, Any]] = {}  # each host's state as last probed; `forget` leaves it, for the doctor
capabilities: dict[str, tuple[Version, ...]] = {}  # of the GPUs that each host trains on, as far as known
alike: dict[str, tuple[str, str]] = {}  # kind and stack of each host: what the times of its steps are kept under
rules = cache(load_rules)


PAUSE_S = 2  # between two tries to connect again


class ProbeFailed(Exception):
    """The host answered, but its state could not be read."""


def knobs(host: Host) -> Knobs:
    """The host's knobs. Raises RigError."""
    return knobs_of.read(host.data.dict(), f"host {host.name}")


def refuse_bad_knobs(state: State) -> None:
    """Look at the knobs of every host that takes part, before any is dialled. Raises RigError."""
    for host in filter(state.is_host_in_limit, state.inventory):
        knobs(host)
        knobs_of.refuse_misspelt(host.data.dict(), f"host {host.name}")


def context(host: Host) -> Context:
    """All that is known and wanted of this host; probes it where nothing is remembered. Raises ProbeFailed."""
    if host.name not in _contexts:
        wanted = knobs(host)
        state = _probe(host, wanted)
        if state["host"]["sudo"] == "password" and not host.connector_data.get("prompted_sudo_password"):
            state["host"]["sudo"] = "locked"  # as good as none, and the plan says what to do about it
        if state["host"]["time"]:
            state["host"]["clock_offset_s"] = int(state["host"]["time"] - time.time())
        last = ledger.applied(host.name, address(host))
        largest = store.largest_batch([gpu["uuid"] for gpu in state["gpus"]])
        _last[host.name] = state
        _contexts[host.name] = make_context(host.name, state, knobs_of.stack_of(wanted.stack), wanted, rules(), last,
                                           largest, wheels.known())
        capabilities[host.name] = tuple(gpu.compute_capability for gpu in _contexts[host.name].fit
                                        if gpu.compute_capability)
        alike[host.name] = (state["host"]["kind"], wanted.stack)
    return _contexts[host.name]


def _probe(host: Host, wanted: Knobs) -> dict[str, Any]:
    """The host's state. A connection that breaks meanwhile is made again: in a run for as long as the knobs say."""
    end = time.monotonic() + (wanted.timeout_reconnect if host.state.is_executing else 0)
    why = f"the probe brought nothing from {host.name}"
    for tried in count():
        try:
            # No sudo, whatever the operation around it uses: the facts need none. pyinfra gives a fact that failed its
            # default, which is no host's state: every kernel has a release.
            state: dict[str, Any] = host.get_fact(
                HostState, env_name=wanted.env_name, conda_prefix=wanted.conda_prefix, data_dir=wanted.data_dir,
                files=watched(), _sudo=False, _timeout=wanted.timeout_probe, _ignore_errors=True)
            if state and state["host"]["kernel"]:
                return state
        except (PyinfraError, OSError, EOFError, SSHException) as error:
            why = f"the probe failed: {error}"
        if connected(host) or (tried and time.monotonic() > end):
            raise ProbeFailed(why)
        while not reconnected(host):
            if time.monotonic() > end:
                raise ProbeFailed(f"connection lost: {refused.get(host.name) or why}")
            time.sleep(PAUSE_S)
    raise AssertionError("count() has no end")


def plan(host: Host) -> Plan:
    """The host's plan as of now; made once of what is known, as each operation asks for it twice."""
    ctx = context(host)
    of, made = _plans.get(host.name, (None, None))
    if made is None or of is not ctx:
        made = make_plan(ctx)
        _plans[host.name] = ctx, made
    return made


def step(host: Host, component: str) -> Step:
    """One step of that plan."""
    return plan(host).step(component)


def forget(host: Host, known: Context | None = None) -> None:
    """Something on the host has changed: probe again before the next decision. `known`: but not where a step has
    already probed again, so that this isn't what is remembered any more."""
    if known is None or _contexts.get(host.name) is known:
        _contexts.pop(host.name, None)


def remembered(host: Host) -> Context | None:
    """What is known of the host without asking it."""
    return _contexts.get(host.name)


def address(host: Host) -> str:
    """Where the host is; with its name, what the ledger knows it by."""
    return f"{host.data.get('ssh_hostname') or host.name}:{host.data.get('ssh_port') or ''}"


def last_state(name: str) -> Mapping[str, Any] | None:
    """A host's state as last probed, whatever has changed since; None where it never was."""
    return _last.get(name)
