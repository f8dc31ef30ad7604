"""What `up` did, on disk, so that another process, or one after a crash, can go on or clean up."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path

from .net import Network
from .spec import HostInfo, HostSpec, Services


@dataclass
class State:
    """One running testbed. `services` comes once they are served."""

    network: Network
    services: Services | None = None
    hosts: list[HostInfo] = field(default_factory=list)

    def host(self, name: str) -> tuple[int, HostInfo] | None:
        """A host's index on the bridge, and the host."""
        return next(((index, host) for index, host in enumerate(self.hosts) if host.name == name), None)


def save(folder: Path, state: State) -> None:
    """Write it whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / "state.json.new"
    partial.write_text(json.dumps(asdict(state), indent=1), encoding="utf-8")
    os.replace(partial, folder / "state.json")


def load(folder: Path) -> State | None:
    """The state of a testbed, or None where none is up."""
    try:
        raw = json.loads((folder / "state.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    hosts = [HostInfo(**{**host, "spec": HostSpec(**host["spec"])}) for host in raw["hosts"]]
    services = Services(**raw["services"]) if raw["services"] else None
    return State(Network(**raw["network"]), services, hosts)
