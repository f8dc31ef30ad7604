"""One training over several hosts: who is rank 0, by which network, and the files that start it on each. Pure.

torch.distributed meets at rank 0's address and port; NCCL and gloo then connect every host with every other, on ports
of their own choosing, by the interface that they are told (NCCL_SOCKET_IFNAME, GLOO_SOCKET_IFNAME).
"""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import field
from ipaddress import IPv4Interface, IPv4Network
from typing import Any

import yaml

from qwen_rig import strictjson
from qwen_rig.domain import Domain
from qwen_rig.errors import RigError
from qwen_rig.frozen import frozen
from qwen_rig.training import accelerate_config

YAML, ENV, LAUNCH, TORCHRUN, RECORD = "launch.yaml", "launch.env", "launch.sh", "torchrun.sh", "launch.json"
WRITTEN = (YAML, ENV, LAUNCH, TORCHRUN)
NAMES = (*WRITTEN, RECORD)
IFNAME = ("NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME")
# Networks of one machine's own, which no other host is on: Docker's, libvirt's, containers' ends.
OWN = ("docker", "br-", "virbr", "veth", "lxc", "cni", "flannel")


@frozen
class Member:
    """One host of the launch, as it was found.

    `address`: where the inventory says it is; `wanted`: the knob launch_address; `env`: its env's folder, None where
    there is none; `cards`: its GPUs' UUIDs; `torch`: its torch's version, None without; `addresses`: (interface,
    address, prefix length); `files`: those of NAMES that are there; `about`: what else a check depends on;
    `environment`: what NCCL must be told for its cards; `domain`: its trust domain.
    """

    name: str
    address: str
    env: str | None
    cards: tuple[str, ...]
    torch: str | None = None
    wanted: str | None = None
    port: int = 29500
    addresses: tuple[tuple[str, str, int], ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    about: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    domain: Domain | None = None


@frozen
class Launch:
    """Who takes part, in the order of ranks, and each one's (interface, address); rank 0's is where all meet."""

    members: tuple[Member, ...]
    places: tuple[tuple[str, str], ...]
    port: int

    @property
    def master(self) -> str:
        return self.places[0][1]

    @property
    def cards(self) -> int:
        """GPUs, and so processes, a host; 1 where there are none."""
        return max(1, len(self.members[0].cards))

    def rank(self, name: str) -> int:
        """A host's machine rank."""
        return [member.name for member in self.members].index(name)

    @property
    def fingerprint(self) -> str:
        """What a check is about: another value, and it must be done again."""
        rows = [[m.name, m.env, m.torch, m.about, sorted(m.cards), *([m.environment] if m.environment else [])]
                for m in self.members]
        return hashlib.sha256(json.dumps([rows, self.places, self.port]).encode()).hexdigest()[:16]


def together(members: Sequence[Member]) -> Launch:
    """The launch of these hosts, in this order. Raises RigError, one line, where they can't train together."""
    if len(members) < 2:
        names = "".join(member.name for member in members) or "no host"
        raise RigError(f"a launch takes two hosts or more, and this is {names}", "",
                       "name more of them; for one host's cards: accelerate launch --config_file accelerate.yaml")
    if lacking := [member.name for member in members if member.env is None]:
        raise RigError(f"no env on {', '.join(lacking)}", "", "run deploy/5090.py on it first, or use --limit")
    if len({len(member.cards) for member in members}) > 1:
        said = ", ".join(f"{member.name} {len(member.cards)}" for member in members)
        raise RigError(f"the hosts have different numbers of GPUs: {said}", "",
                       "one launch takes as many on each: leave hosts out with --limit")
    if len({member.torch for member in members}) > 1:
        said = ", ".join(f"{member.name} {member.torch or 'none'}" for member in members)
        raise RigError(f"the hosts have different versions of torch: {said}", "",
                       "run deploy/5090.py on all with one stack")
    if len({member.port for member in members}) > 1:
        said = ", ".join(f"{member.name} {member.port}" for member in members)
        raise RigError(f"launch_port isn't the same on all: {said}", "", "set it for all of them")
    return Launch(tuple(members), tuple(_places(members)), members[0].port)


def trusting(launch: Launch) -> str:
    """What hosts of more than one trust domain let each other do by training together; empty where all share one.

    torch.distributed asks nobody who they are and runs what it is sent (pytorch/pytorch, SECURITY.md).
    """
    domains: dict[str, Domain] = {member.domain.id: member.domain for member in launch.members if member.domain}
    if len(domains) < 2:
        return ""
    names = ", ".join(map(str, domains.values()))
    return (f"the hosts are of {len(domains)} trust domains ({names}): while they train together each can run code on "
            "the others, and so can all who reach their ports. Where they are your own, give them one trust_domain")


def _places(members: Sequence[Member]) -> list[tuple[str, str]]:
    """Each host's interface and address by which the others reach it.

    The knob's where it is set on any; else the addresses of the inventory where each host has its own (so that a
    route between them exists: we came by it); else those in a network that all share, as behind a cloud's translation.
    """
    if any(member.wanted for member in members):
        return [_own(member, member.wanted or member.address) for member in members]
    if all(_has(member, member.address) for member in members):
        return [_own(member, member.address) for member in members]
    for network in _networks(members[0]):
        found = [next(((name, str(at.ip)) for name, at in _interfaces(member) if at.network == network), None)
                 for member in members]
        places = [place for place in found if place]
        # Containers on two machines are often both 172.17.0.2: that is no network between them.
        if len({address for _, address in places}) == len(members):
            return places
    raise RigError("the hosts share no network that they could reach each other by", "",
                   "set launch_address for each: an address of its own that the others reach")


def _interfaces(member: Member) -> list[tuple[str, IPv4Interface]]:
    return [(name, IPv4Interface(f"{address}/{prefix}")) for name, address, prefix in member.addresses
            if not name.startswith(OWN)]


def _networks(member: Member) -> list[IPv4Network]:
    return [at.network for _, at in _interfaces(member)]


def _has(member: Member, address: str) -> bool:
    return any(found == address for _, found, _ in member.addresses)


def _own(member: Member, address: str) -> tuple[str, str]:
    for name, found, _ in member.addresses:
        if found == address:
            return name, found
    has = ", ".join(f"{found} ({name})" for name, found, _ in member.addresses) or "none that could be read"
    raise RigError(f"{address} is no address of {member.name}'s own, which are: {has}", "",
                   "set launch_address for that host to one of them")


def environment(launch: Launch, name: str) -> dict[str, str]:
    """What NCCL and gloo are told on one host: by which interface, and what its cards need."""
    rank = launch.rank(name)
    return {**dict.fromkeys(IFNAME, launch.places[rank][0]), **launch.members[rank].environment}


def files(launch: Launch, name: str, settings: Mapping[str, Any]) -> dict[str, str]:
    """The files of one host, name → text; `settings`: its training.json."""
    rank = launch.rank(name)
    member = launch.members[rank]
    count, env = len(launch.members), shlex.quote(str(member.env))
    config = accelerate_config(settings, launch.cards, count, rank, launch.master, launch.port)
    head = f"#!/bin/sh\n# Host {rank} of {count}: start it on all of them. `rig launch` writes it.\n"
    body = f"set -eu\nenv={env}\n. \"$env/.rig/{ENV}\"\n"
    return {
        YAML: yaml.safe_dump(config),
        ENV: "".join(f"export {name}={shlex.quote(text)}\n" for name, text in environment(launch, name).items()),
        LAUNCH: f"""{head}{body}exec "$env/bin/python" -m accelerate.commands.launch \\
  --config_file "$env/.rig/{YAML}" "$env/.rig/train_qwen.py" "$@"
""",
        TORCHRUN: f"""{head}{body}exec "$env/bin/python" -m torch.distributed.run --nnodes {count} --node-rank {rank} \\
  --nproc-per-node {launch.cards} --master-addr {launch.master} --master-port {launch.port} \\
  "$env/.rig/train_qwen.py" "$@"
""",
    }


@frozen
class Record:
    """What the last check left on a host. `status`: pass, fail or not_run, None where there's no record that can be
    read; `bus_gbs`: GB/s."""

    status: str | None = None
    why: str = ""
    fingerprint: str = ""
    backend: str = ""
    version: str = ""
    ranks: int = 0
    bus_gbs: float = 0.0


def record(member: Member) -> Record:
    """That record; what is of another type than the check writes isn't there."""
    found = strictjson.mapping(member.files.get(RECORD, "")) or {}
    data = found.get("data")
    rows = {**(data if isinstance(data, dict) else {}), **found}
    names = ("why", "fingerprint", "backend", "version")
    texts = {name: row for name in names if isinstance(row := rows.get(name), str)}
    status, ranks, speed = rows.get("status"), rows.get("ranks"), rows.get("bus_gbs")
    return Record(status if status in ("pass", "fail", "not_run") else None, **texts,
                  ranks=ranks if isinstance(ranks, int) else 0,
                  bus_gbs=speed if isinstance(speed, (int, float)) else 0.0)


def stale(launch: Launch, name: str, settings: Mapping[str, Any]) -> list[str]:
    """The files of a host that aren't as they should be."""
    have = launch.members[launch.rank(name)].files
    return [title for title, text in files(launch, name, settings).items() if have.get(title) != text]


def unchecked(launch: Launch, wanted: str) -> str:
    """Why the all-reduce must be done again, '' where it needn't; `wanted`: the knob verification.

    It takes all hosts at once, so one host that has no good record makes all of them do it.
    """
    if wanted == "never":
        return ""
    if wanted == "always":
        return "verification=always"
    for member in launch.members:
        made = record(member)
        if made.status is None or made.fingerprint != launch.fingerprint:
            return f"{member.name}: {'hosts, cards, env or network changed' if made.status else 'not done yet'}"
        if made.status == "fail":
            return f"{member.name}: it failed"
    return ""


def spec(launch: Launch, name: str, gpu: bool, limit: int) -> dict[str, Any]:
    """What qwen_rig/host/launch_check.py is told on a host. `gpu` False: gloo on the CPU, one process a host."""
    rank = launch.rank(name)
    more = launch.members[rank].environment
    return {
        **({"environment": dict(more)} if more else {}),
        "names": [member.name for member in launch.members], "node": rank, "master": launch.master,
        "port": launch.port, "interface": launch.places[rank][0], "fingerprint": launch.fingerprint, "limit": limit,
        **({"backend": "nccl", "per_node": launch.cards, "bytes": 256 << 20} if gpu
           else {"backend": "gloo", "per_node": 1, "bytes": 4 << 20}),
    }
