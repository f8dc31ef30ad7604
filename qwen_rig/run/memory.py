"""What a run knows of its hosts: each one's state, probed once and dropped when something changes it, and its plan.

pyinfra 3.10 caches no fact, in prepare or in execute: this memo is what makes a converged run one exec per host.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from typing import Any

from packaging.version import Version

from qwen_rig import connection, ledger, say
from qwen_rig import knobs as knobs_of
from qwen_rig.catalog.rules import load_rules
from qwen_rig.certificate import store
from qwen_rig.domain import Domain, Identity, domain_of
from qwen_rig.facts.probe import HostState
from qwen_rig.facts.state import State as HostFacts
from qwen_rig.flash import cache as wheels
from qwen_rig.hostkeys import sha256
from qwen_rig.knobs import Knobs
from qwen_rig.managed import watched
from qwen_rig.plan import Context, Plan, Step
from qwen_rig.plan.choice import for_driver

from . import adapter
from .adapter import LOST, Host, PyinfraError, State
from .limits import Hopeless
from .links import Links

PAUSE_S = 2  # between two tries to connect again


class ProbeFailed(Exception):
    """The host answered, but its state could not be read."""


UNREAD = (ProbeFailed, PyinfraError, *LOST)  # what a look at a host in mid-run may raise


def knobs(host: Host) -> Knobs:
    """The host's knobs. Raises RigError."""
    return knobs_of.read(_data(host), f"host {host.name}")


def _data(host: Host) -> dict[str, Any]:
    """The host's data, where an old name of a knob is as strong as the source that it stands in."""
    found: dict[str, Any] = {}
    for each in adapter.data_by_source(host):
        found.update(knobs_of.renamed(each))
    return found


def refuse_bad_knobs(state: State, refuse: Callable[[Knobs, str], None]) -> None:
    """Look at the knobs of every host that takes part, before any is dialled, and tell of old names among them.
    `refuse` looks at what a host's knobs say of steps. Raises RigError."""
    names = set[str]()
    for host in adapter.taking_part(state):
        refuse(knobs(host), f"host {host.name}")
        names.update(data := adapter.data(host))
        knobs_of.refuse_misspelt(data, f"host {host.name}")
    if line := knobs_of.told_old(names):
        say.err(line)


def refuse_bad_connections(state: State) -> None:
    """Look at where each host that takes part would be dialled, whatever inventory it comes from. Raises RigError."""
    for host in filter(adapter.by_ssh, adapter.taking_part(state)):
        data = adapter.data(host)
        connection.refuse_bad({"ssh_hostname": data.get("ssh_hostname") or host.name, **data}, f"host {host.name}",
                              {} if data.get("ssh_hostname") else {"ssh_hostname": "its name"})


def address(host: Host) -> str:
    """Where the host is; with its name, what the ledger knows it by."""
    return f"{host.data.get('ssh_hostname') or host.name}:{host.data.get('ssh_port') or ''}"


def identity(host: Host) -> Identity:
    """Who the host is: its name, and the key by which it has proven itself on this connection."""
    key = adapter.host_key(host)
    return Identity(host.name, sha256(key) if key is not None else None)


def _known_here(host: Host, state: HostFacts) -> HostFacts:
    """The state with what only this controller knows: whether sudo's password is at hand, and the clock's offset."""
    machine = state.machine
    if machine.sudo == "password" and not adapter.knows_sudo_password(host):
        machine = replace(machine, sudo="locked")  # as good as none, and the plan says what to do about it
    if machine.time:
        machine = replace(machine, clock_offset_s=int(machine.time - time.time()))
    return replace(state, machine=machine)


class Memory:
    """The hosts of one run. `capabilities`: of the GPUs that each host trains on, as far as known; `domains`: each
    host's trust domain; `alike`: kind and stack of each host, under which the times of its steps are kept."""

    def __init__(self, links: Links, make_plan: Callable[[Context], Plan]) -> None:
        self.capabilities: dict[str, tuple[Version, ...]] = {}
        self.domains: dict[str, Domain] = {}
        self.alike: dict[str, tuple[str, str]] = {}
        self.make_plan, self._links = make_plan, links
        self._contexts: dict[str, Context] = {}
        self._plans: dict[str, tuple[Context, Plan]] = {}  # each plan with what it was made from
        self._last: dict[str, HostFacts] = {}  # each state as last probed; `forget` leaves it, for the doctor

    def context(self, host: Host) -> Context:
        """All that is known and wanted of this host; probes it where nothing is remembered. Raises ProbeFailed."""
        if host.name not in self._contexts:
            wanted = knobs(host)
            state = _known_here(host, self._probe(host, wanted))
            last, who = ledger.applied(host.name, address(host)), identity(host)
            wanted = for_driver(wanted, state, load_rules(), knobs_of.stack_of)
            largest = store.largest_batch(who, {gpu.uuid: gpu.memory_mib for gpu in state.gpus if gpu.uuid})
            ctx = Context(host.name, state, knobs_of.stack_of(wanted.stack), wanted, load_rules(), last, largest, who,
                          wheels.known(domain_of(wanted.trust_domain, who)),
                          store.peers_fail(who, [gpu.uuid for gpu in state.gpus if gpu.uuid]))
            self.domains[host.name] = ctx.domain
            self._last[host.name], self._contexts[host.name] = state, ctx
            self.capabilities[host.name] = tuple(gpu.compute_capability for gpu in ctx.fit if gpu.compute_capability)
            self.alike[host.name] = (state.machine.kind, wanted.stack)
        return self._contexts[host.name]

    def _probe(self, host: Host, wanted: Knobs) -> HostFacts:
        """The host's state. A connection that breaks meanwhile is made again: in a run for as long as knobs say."""
        end = time.monotonic() + (wanted.timeout_reconnect if host.state.is_executing else 0)
        why = f"the probe brought nothing from {host.name}"
        for tried in count():
            try:
                # pyinfra gives a fact that failed its default, which is no host's state: every kernel has a release.
                state = HostFacts.of(adapter.fact(
                    host, HostState, env_name=wanted.env_name, conda_prefix=wanted.conda_prefix,
                    data_dir=wanted.data_dir, files=watched(), _timeout=wanted.timeout_probe))
                if state.machine.kernel:
                    return state
            except Hopeless:
                raise
            except (PyinfraError, *LOST) as error:
                why = f"the probe failed: {error}"
            if adapter.connected(host) or (tried and time.monotonic() > end):
                raise ProbeFailed(why)
            while not self._links.reconnected(host):
                if time.monotonic() > end:
                    raise ProbeFailed(f"connection lost: {self._links.refused.get(host.name) or why}")
                time.sleep(PAUSE_S)
        raise AssertionError("count() has no end")

    def plan(self, host: Host) -> Plan:
        """The host's plan as of now; made once of what is known, as each operation asks for it twice."""
        ctx = self.context(host)
        of, made = self._plans.get(host.name, (None, None))
        if made is None or of is not ctx:
            made = self.make_plan(ctx)
            self._plans[host.name] = ctx, made
        return made

    def step(self, host: Host, component: str) -> Step:
        """One step of that plan."""
        return self.plan(host).step(component)

    def forget(self, host: Host, known: Context | None = None) -> None:
        """Something on the host has changed: probe again before the next decision. `known`: but not where a step has
        already probed again, so that this isn't what is remembered any more."""
        if known is None or self._contexts.get(host.name) is known:
            self._contexts.pop(host.name, None)

    def remembered(self, host: Host) -> Context | None:
        """What is known of the host without asking it."""
        return self._contexts.get(host.name)

    def last_state(self, name: str) -> HostFacts | None:
        """A host's state as last probed, whatever has changed since; None where it never was."""
        return self._last.get(name)
