"""flash-attn once per trust domain: of its hosts that would build the same, one does; the others get its wheel from
here. Hosts of different domains neither wait for each other nor get each other's wheels.

Hosts are greenlets (gevent makes threading's locks and events theirs). The first to come leads. Where each host goes
ahead by itself (Report.ahead), a host that can't build waits for those that can until they are past this step;
elsewhere nobody waits without end for a host that hasn't come: `--serial` and `--parallel 1` can't stand still.
"""

from __future__ import annotations

import fcntl
import json
import os
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import field, replace
from pathlib import Path
from typing import Any

from qwen_rig import strictjson
from qwen_rig.deploy.flash_attn.plan import AttentionPayload
from qwen_rig.domain import Domain
from qwen_rig.errors import RigError
from qwen_rig.flash import cache
from qwen_rig.flash.key import Key, words
from qwen_rig.flash.resources import rules
from qwen_rig.frozen import frozen
from qwen_rig.run import adapter, memory
from qwen_rig.run.adapter import Host
from qwen_rig.run.run import Run
from qwen_rig.units import span

# After a killed run the host that was building goes on by itself: this long the others wait for it to come first.
GRACE_S = 20
ASK_S = 1.0  # for another run's lock
SAY_EVERY_S = 60.0
COMPONENT = "flash_attn"


@frozen
class Built:
    """Result of one build. `wheel`: on this machine, None where there is none (`why` says it); `record`: how it was
    built.

    `refused`: the build was not even begun on this host, which costs nothing and says nothing about others.
    `host`: who built it.
    """

    wheel: Path | None
    record: Mapping[str, Any] = field(default_factory=dict)
    why: str = ""
    refused: bool = False
    host: str = ""


class _Group:
    """The hosts of one domain and key in this run."""

    def __init__(self) -> None:
        self.leader = ""
        self.failed: dict[str, Built] = {}  # host → how
        self._ended = threading.Event()  # of the leader at work; another leader, another event
        self._lock = threading.Lock()

    def join(self, name: str) -> threading.Event | None:
        """Lead (None), or what to wait for: the end of the one who does."""
        with self._lock:
            if self.leader:
                return self._ended
            self.leader, self._ended = name, threading.Event()
            return None

    def leave(self) -> None:
        """Lead no longer."""
        with self._lock:
            self.leader = ""
            self._ended.set()


class Builds:
    """The builds of one run. `groups`: the hosts of each domain and key; `at_work`: hosts that are at work on this
    step, and what each may yet build for which domain; `arrived`: hosts that have come to the step."""

    def __init__(self) -> None:
        self.groups: dict[tuple[Domain, Key], _Group] = {}
        self.at_work: dict[str, tuple[Domain, tuple[Key, ...]]] = {}
        self.arrived: set[str] = set()

    @classmethod
    def of(cls, host: Host) -> Builds:
        """The builds of the run that a host takes part in."""
        return Run.of(host).part(cls)


@contextmanager
def taking_part(host: Host, domain: Domain, keys: Sequence[Key]) -> Iterator[None]:
    """Meanwhile this host may yet build these, and hosts of its domain that can't build themselves wait for it."""
    builds = Builds.of(host)
    builds.at_work[host.name] = domain, tuple(keys)
    builds.arrived.add(host.name)
    try:
        yield
    finally:
        del builds.at_work[host.name]


def builders(host: Host, domain: Domain) -> set[str]:
    """Other hosts of this run and domain whose plan may come to a build."""
    planned, run = set(), Run.of(host)
    for name, plan in run.report.plans.items():
        for step in plan.steps:
            able = isinstance(step.payload, AttentionPayload) and step.payload.able
            if step.action.changes and able and run.memory.domains.get(name) == domain:
                planned.add(name)
    return planned - {host.name}


def of_others(host: Host, domain: Domain, key: Key, but: Collection[str] = ()) -> Built:
    """The wheel for a host that can't build: from its domain's cache here, or as another host of this run and domain
    builds it. `but`: none of those sha256, which were tried there.

    It waits as long as one is at work that may yet build what serves, and for those that haven't come: all the way
    where hosts go ahead by themselves, else GRACE_S (they may never come, under --serial).
    """
    builds, end, said = Builds.of(host), time.monotonic() + GRACE_S, False
    while True:
        if found := _cached(host, domain, key, but):
            return found
        at_work = [name for name, (of, keys) in builds.at_work.items()
                   if of == domain and any(each.serves(key) for each in keys)]
        coming = _coming(host, domain)
        if not at_work and (not coming or (time.monotonic() > end and not Run.of(host).report.ahead)):
            return Built(None, why="no host of this run that shares with it has built it")
        if not said:
            _tell(host, f"can't build; waits for {', '.join(sorted({*at_work, *coming}))}")
            said = True
        time.sleep(ASK_S)


def _coming(host: Host, domain: Domain) -> set[str]:
    """Builders that have not come to this step, are not past it and have not failed."""
    run, active = Run.of(host), {each.name for each in adapter.active(host.state)}
    return {name for name in builders(host, domain) - Builds.of(host).arrived
            if name in active and COMPONENT not in run.past[name]}


def archs(run: Run, domain: Domain) -> tuple[str, ...]:
    """FLASH_ATTN_CUDA_ARCHS's words for the cards of the domain's hosts in this run: one wheel for all."""
    return words(capability for name, found in run.memory.capabilities.items()
                 if run.memory.domains.get(name) == domain for capability in found)


def build_once(host: Host, domain: Domain, key: Key, build: Callable[[], Built], leader_failed: str,
               own: Sequence[str] = (), but: Collection[str] = ()) -> Built:
    """The wheel for this host: from its domain's cache here, or as built now by one host of all that have this key
    there.

    `build` is called on at most one host at a time, in that host's greenlet; it brings the wheel to this machine
    (`transfer.bring`). A host whose own build fails gets that failure; what the others then do is `leader_failed`'s:
    next (one of them tries, up to qwen_rig/data/flash.yml's number) or sdpa (a Built without a wheel). `own`: the
    architectures that this very host needs; a wheel from before that has them will do, unless its sha256 is among
    `but`: those that this host has tried.
    """
    wanted = replace(key, archs=tuple(own)) if own else key
    group = Builds.of(host).groups.setdefault((domain, key), _Group())
    if found := _cached(host, domain, wanted, but):
        return found
    _await_earlier(host, domain, key, group)
    while (ended := group.join(host.name)) is not None:
        _tell(host, f"waits for {group.leader}, which builds it for all")
        ended.wait()
        if found := _cached(host, domain, wanted, but):
            return found
    try:
        if group.failed and (leader_failed == "sdpa" or len(group.failed) >= rules().leaders):
            said = "; ".join(f"the build failed on {name}: {built.why}" for name, built in group.failed.items())
            last = [line for built in group.failed.values() for line in built.record.get("last", [])][-5:]
            why = f"{said}; no other host tries (flash_attn_leader_failed={leader_failed})"
            return Built(None, {"last": last}, why)
        with _alone(host, domain, key):
            return _cached(host, domain, wanted, but) or _lead(host, domain, key, group, build)
    finally:  # also where this greenlet is killed: the others must not wait for ever
        group.leave()


def _lead(host: Host, domain: Domain, key: Key, group: _Group, build: Callable[[], Built]) -> Built:
    sign = _sign(domain, key)
    with suppress(OSError):
        sign.write_text(json.dumps({"host": host.name, "address": memory.address(host)}), encoding="utf-8")
    group.failed[host.name] = Built(None, why="broke off")  # whatever ends it now
    try:
        built = build()
    except RigError as error:
        built = Built(None, why=str(error))
    del group.failed[host.name]
    sign.unlink(missing_ok=True)  # but not after another exception: a job may be at work there still
    if built.wheel is None:
        if not built.refused:
            group.failed[host.name] = built
        return replace(built, host=host.name)
    record = {**built.record, "host": host.name, "domain": domain.id}
    try:
        path = cache.keep(domain, key, built.wheel, record).path
    except OSError as error:  # good for this host all the same
        _tell(host, f"the wheel can't be kept for other hosts: {error.strerror} · {cache.folder(domain)}")
        return replace(built, record=record, host=host.name)
    return Built(path, record, built.why, host=host.name)


def _cached(host: Host, domain: Domain, key: Key, but: Collection[str] = ()) -> Built | None:
    found = cache.find(domain, key, lambda line: _tell(host, line), but)
    if found is None:
        return None
    builder = str(found.record.get("host", "an earlier run"))
    return Built(found.path, found.record, f"built by {builder}", host=builder)


def _sign(domain: Domain, key: Key) -> Path:
    """Name of the file that records the building host, while one builds."""
    return cache.folder(domain) / key.name / "leader.json"


def _await_earlier(host: Host, domain: Domain, key: Key, group: _Group) -> None:
    """Let the host that a broken-off run left building come first: it attaches to its job and builds nothing twice."""
    try:
        earlier = strictjson.mapping(_sign(domain, key).read_text(encoding="utf-8")) or {}
    except (OSError, ValueError):
        return
    name, address = earlier.get("host"), earlier.get("address")
    taking_part = {other.name: other for other in host.state.inventory.get_active_hosts()}
    if name == host.name or group.leader or group.failed:
        return
    if isinstance(name, str) and name in taking_part and memory.address(taking_part[name]) == address:
        _tell(host, f"waits for {name}, which was building it when the last run broke off")
        end = time.monotonic() + GRACE_S
        while time.monotonic() < end and not (group.leader or group.failed) and _sign(domain, key).exists():
            time.sleep(0.2)


@contextmanager
def _alone(host: Host, domain: Domain, key: Key) -> Iterator[None]:
    """Meanwhile no other run on this machine builds for that domain and key; another one's build is waited for, and
    that said.

    Without waiting in the kernel, which would stop every other greenlet. A disk that takes no lock is said, too.
    """
    path = cache.folder(domain) / key.name / "lock"
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        _tell(host, f"two runs at once could build twice: {error.strerror} · {path}")
        yield
        return
    try:
        began, said = time.monotonic(), -SAY_EVERY_S
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                waited = time.monotonic() - began
                if waited - said >= SAY_EVERY_S:
                    said = waited
                    _tell(
                        host, "another run on this machine builds the same; waits for it"
                        f"{f', {span(waited)} so far' if waited >= 1 else ''}")
                time.sleep(ASK_S)
            except OSError as error:
                _tell(host, f"two runs at once could build twice: {error.strerror} · {path}")
                break
        yield
    finally:
        os.close(descriptor)


def _tell(host: Host, line: str) -> None:
    Run.of(host).report.progress(host.name, line)
