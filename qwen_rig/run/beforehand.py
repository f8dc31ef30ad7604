"""What is looked at of each host before any is dialled, and what is asked of it as soon as it answers.

Few modules are loaded for this. The rest of the package loads while the hosts are at work on their probes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from qwen_rig import connection, say
from qwen_rig import knobs as knobs_of
from qwen_rig.facts.probe import HostState
from qwen_rig.knobs import Knobs

from . import adapter
from .adapter import Host, State


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


class Probes:
    """The probes of one run, each sent as soon as its host is reached. `watched`: gives the paths of files whose state
    they bring."""

    def __init__(self, watched: Callable[[], Iterable[str]]) -> None:
        self._watched = watched
        self._under_way: dict[str, Callable[[], Any]] = {}

    def send(self, host: Host) -> None:
        """Send a host its probe, and leave it at work on that."""
        wanted = knobs(host)
        self._under_way[host.name] = adapter.begun(host, lambda: self._asked(host, wanted))

    def answer(self, host: Host, wanted: Knobs) -> dict[str, Any]:
        """What the probe brings; asked now where that wasn't done, or where its answer was taken before. Raises what
        adapter.fact raises."""
        found: dict[str, Any] = self._under_way.pop(host.name, lambda: self._asked(host, wanted))()
        return found

    def _asked(self, host: Host, wanted: Knobs) -> Any:
        return adapter.fact(host, HostState, env_name=wanted.env_name, conda_prefix=wanted.conda_prefix,
                            data_dir=wanted.data_dir, files=tuple(self._watched()), _timeout=wanted.timeout_probe)
