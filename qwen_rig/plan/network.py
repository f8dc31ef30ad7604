"""What can be told of the network before anything is fetched: the clock, name servers, the disks that downloads land
on. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from urllib.parse import urlsplit

from qwen_rig.catalog.limits import load_limits
from qwen_rig.plan.context import Context, gib
from qwen_rig.plan.env import envs_dir
from qwen_rig.plan.model import Refusal, Step
from qwen_rig.plan.place import disk_at, environment


def fetches(steps: Sequence[Step]) -> bool:
    """Whether these steps bring anything in from outside."""
    return any(step.action.changes and (step.bytes != 0 or step.fetches) for step in steps)


def refusals(ctx: Context, steps: Sequence[Step]) -> list[Refusal]:
    """A clock so wrong that no certificate would hold; a cache's or temporary folder's disk too small."""
    if not fetches(steps):
        return []
    found, offset = [], ctx.machine.clock_offset_s or 0
    if abs(offset) >= load_limits().clock_refuse_s:
        remedy = ("it is its host's clock: tell the provider, or rent another" if ctx.foreign_kernel
                  else "set it: `timedatectl set-ntp true`, or `date -s` as root")
        found.append(Refusal(f"its clock is {_lag(offset)}: certificates and signatures would be refused", remedy))
    return found + (_room(ctx) if _builds(steps) else [])


def caveats(ctx: Context, steps: Sequence[Step]) -> list[str]:
    """A clock that is off, but not so far that anything fails by it; no name server where something comes by name;
    little room for the installer that stands by."""
    limits, offset = load_limits(), ctx.machine.clock_offset_s or 0
    off = limits.clock_say_s <= abs(offset) < limits.clock_refuse_s
    return ([f"its clock is {_lag(offset)}"] if off else []) + _unresolved(ctx, steps) + _fallback(ctx, steps)


def _unresolved(ctx: Context, steps: Sequence[Step]) -> list[str]:
    """No refusal: names may be known from /etc/hosts, or by a module of nsswitch.conf that reads no resolv.conf."""
    network = ctx.machine.network
    proxied = ctx.knobs.proxy or any(name.lower() in PROXIES for name in network.proxies)
    if network.nameservers != 0 or ctx.knobs.bundle or proxied:  # None: not known
        return []
    knobs = ctx.knobs
    places = {"nvidia_apt": knobs.source_nvidia_apt, "miniforge": knobs.source_miniforge,
              "pip_index": knobs.source_pip_index or network.pip_index, "conda_channel": knobs.source_conda_channel}
    named = [step.title for step in steps if step.action.changes
             and any(_by_name(places[role]) for role in step.fetches if role in places)]
    return [f"its /etc/resolv.conf has no name server: it must know the sources of {', '.join(named)} in another way, "
            "as by /etc/hosts"] if named else []


PROXIES = ("http_proxy", "https_proxy", "all_proxy")  # a proxy looks names up itself


def _by_name(place: str | None) -> bool:
    """Whether an address must be looked up; None is a default, and each has a name in it."""
    try:
        ipaddress.ip_address(urlsplit(place or "").hostname or "")
    except ValueError:
        return not (place or "").startswith("file:")
    return False


def _lag(offset: int) -> str:
    size = abs(offset)
    unit, name = next((u, n) for u, n in ((86400 * 365, "year"), (86400, "day"), (3600, "hour"), (60, "minute"),
                                          (1, "second")) if size >= u or u == 1)
    count = size // unit
    return f"{count} {name}{'s' * (count != 1)} {'behind' if offset < 0 else 'ahead of'} the controller's"


def _room(ctx: Context) -> list[Refusal]:
    """The downloads stay in a cache, and pip unpacks in its temporary folder: where these are on another disk than the
    env, that disk needs room of its own."""
    sent = environment(ctx)
    places = [sent.get("XDG_CACHE_HOME", f"{ctx.machine.user.home}/.cache")]
    if ctx.knobs.installer == "pip":  # uv unpacks in its cache
        places.append(_tmpdir(ctx))
    need, env_disk = ctx.stack.cache_mib, disk_at(ctx, envs_dir(ctx))
    return [Refusal(f"{disk.mount} has {gib(disk.free_mib)} free, and the downloads of stack {ctx.stack.name} "
                    f"take {gib(need)} at {place}", "set data_dir to a folder on a bigger disk")
            for place in places
            if (disk := disk_at(ctx, place)) and disk != env_disk and disk.free_mib < need]


def _tmpdir(ctx: Context) -> str:
    """Where pip unpacks on that host."""
    return str(environment(ctx).get("TMPDIR") or ctx.machine.network.tmpdir or "/tmp")


def _fallback(ctx: Context, steps: Sequence[Step]) -> list[str]:
    """installer=auto: uv needs no temporary folder, pip behind it does."""
    if ctx.knobs.installer != "auto" or not _builds(steps):
        return []
    need, env_disk, place = ctx.stack.cache_mib, disk_at(ctx, envs_dir(ctx)), _tmpdir(ctx)
    disk = disk_at(ctx, place)
    if disk is None or disk == env_disk or disk.free_mib >= need:
        return []
    return [f"where uv can't be fetched, pip unpacks in {place}: {disk.mount} has {gib(disk.free_mib)} free, and it "
            f"may take {gib(need)}"]


def _builds(steps: Sequence[Step]) -> bool:
    """Whether an env is filled from what is fetched."""
    return any(step.action.changes and "conda_channel" in step.fetches for step in steps)
