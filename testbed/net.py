"""The bridge and the cables. No address translation, no forwarding, no default route: hosts reach the bridge alone."""

from __future__ import annotations

import ipaddress
import json
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ._shell import TestbedError, run

PREFIX = "qrtb"  # every link of the testbed begins so
FIRST = ipaddress.ip_network("10.213.77.0/24")
SLOTS = 100


@dataclass(frozen=True)
class Network:
    """One testbed's bridge: /24, the bridge at .1, hosts from .11 on."""

    bridge: str
    prefix: str

    @property
    def gateway(self) -> str:
        """The bridge's own address, where the services listen."""
        return f"{self.prefix}.1"

    def address(self, index: int) -> str:
        """The address of the host with this index, from 0."""
        return f"{self.prefix}.{11 + index}"

    def cable(self, index: int) -> str:
        """The controller's end of that host's veth pair."""
        return f"{self.bridge}-{index}"


def free() -> Network:
    """The first private /24 that nothing on this machine has an address or a route in."""
    taken = {entry["local"] for link in json.loads(run(["ip", "-j", "-4", "address"])) for entry in link["addr_info"]}
    routes = {route["dst"].split("/")[0] for route in json.loads(run(["ip", "-j", "-4", "route"]))}
    taken |= routes - {"default"}
    links = set(names())
    for slot in range(SLOTS):
        network = ipaddress.ip_network((int(FIRST.network_address) + 256 * slot, 24))
        bridge = f"{PREFIX}{slot}"
        if bridge not in links and not any(ipaddress.ip_address(address) in network for address in taken):
            return Network(bridge, str(network.network_address).rpartition(".")[0])
    raise TestbedError(f"no free /24 from {FIRST} on · {SLOTS} tried · stop another testbed")


def create(network: Network, owner: Path) -> None:
    """Put up the bridge, with its testbed's folder as its alias."""
    _batch([f"link add {network.bridge} type bridge forward_delay 0",
            f"link set {network.bridge} alias {owner}",
            f"address add {network.gateway}/24 dev {network.bridge}", f"link set {network.bridge} up"])


def plug(network: Network, hosts: dict[int, int]) -> None:
    """A cable from the bridge into each host's network namespace: index → pid of a process in it."""
    lines = []
    for index, pid in hosts.items():
        cable = network.cable(index)
        # A fixed MAC: a host that was reset must not wait for the bridge's neighbour table to forget the old one.
        lines += [f"link add {cable} type veth peer name eth0 address 02:71:72:00:00:{11 + index:02x} netns {pid}",
                  f"link set {cable} master {network.bridge} up"]
    _batch(lines)


def cable(network: Network, index: int, up: bool) -> None:
    """Plug or pull one host's cable: no packet passes, no connection is told."""
    run(["ip", "link", "set", network.cable(index), "up" if up else "down"])


def unplug(link_names: list[str]) -> None:
    """Delete links, cables before bridges. Those of a network namespace that is just ending may go by themselves."""
    there: list[str] = []
    for _ in range(3):
        there = sorted(set(names()) & set(link_names), key=len, reverse=True)
        if not there:
            return
        with suppress(TestbedError):
            _batch([f"link delete {name}" for name in there], force=True)
    raise TestbedError(f"links {', '.join(there)} · can't be deleted · see `ip link`")


def names(owner: Path | None = None) -> list[str]:
    """The links of one testbed's folder, or of every testbed: bridges and cables."""
    found = [name for name in os.listdir("/sys/class/net") if name.startswith(PREFIX)]
    if owner is None:
        return found
    bridges = {name for name in found if "-" not in name
               and Path(f"/sys/class/net/{name}/ifalias").read_text(encoding="utf-8").strip() == str(owner)}
    return [name for name in found if name.split("-")[0] in bridges]


def _batch(lines: list[str], force: bool = False) -> None:
    if lines:
        run(["ip", *(["-force"] if force else []), "-batch", "-"], stdin="\n".join(lines) + "\n")
