"""Where env, caches and HF_HOME lie: below conda or the home, or on a data disk where the root is small. Pure."""

from __future__ import annotations

from functools import cache
from typing import Any, ClassVar

from qwen_rig.catalog.datafile import DATA, Flag, Row, Text, load
from qwen_rig.catalog.marks import named
from qwen_rig.catalog.sources import AptKey
from qwen_rig.facts.machine import Disk
from qwen_rig.frozen import frozen
from qwen_rig.managed import repository_url
from qwen_rig.plan.context import Context
from qwen_rig.trust import MEMORY

PLACE = "qwen-rig"  # our folder on a data disk; the probe looks for it by that name (facts/_conda.py)


def data_folder(ctx: Context) -> str | None:
    """Our folder on the data disk that is used, or None where none is wanted.

    In this order: the disk that `data_dir` names; the one that holds our env already; none where
    `conda_prefix` says where things go, where an env is elsewhere, or where the home's disk has room for the stack;
    else the roomiest disk that has room and that we may write to.
    """
    if ctx.knobs.data_dir:
        return f"{ctx.knobs.data_dir.rstrip('/')}/{PLACE}"
    if ctx.knobs.conda_prefix:
        return None
    places = [g.path for g in ctx.state.generations] + ([ctx.state.env.path] if ctx.state.env else [])
    if placed := next((path for path in places if f"/{PLACE}/envs/" in path), None):
        return placed.rpartition("/envs/")[0]
    if ctx.state.env:
        return None
    home = disk_at(ctx, ctx.machine.user.home)
    need = ctx.stack.disk_mib
    if home is None or (home.free_mib >= need and not in_memory(home)):
        return None
    roomy = [d for d in ctx.machine.disks if d.writable and d.free_mib >= need and usable(d)]
    best = max(roomy, key=lambda d: (_kept(ctx, d.mount), d.free_mib), default=None)
    return f"{best.mount.rstrip('/')}/{PLACE}" if best else None


def usable(disk: Disk) -> bool:
    """Whether what is written there is still there tomorrow: memory isn't a disk, and / is where the trouble began."""
    return disk.fstype not in MEMORY and disk.mount not in ("/", "/tmp", "/var/tmp", "/boot")


def in_memory(disk: Disk) -> bool:
    """Whether the next boot empties it. A whole system that lives in memory is somebody's choice."""
    return disk.fstype in MEMORY and disk.mount != "/"


def disk_at(ctx: Context, path: str) -> Disk | None:
    """The file system that holds a path (which need not be there yet); None where none is known."""
    holding = [d for d in ctx.machine.disks
               if path == d.mount or path.startswith(d.mount.rstrip("/") + "/")]
    return max(holding, key=lambda d: len(d.mount), default=None)


def hf_home(ctx: Context) -> str | None:
    """HF_HOME where models should go to the data disk; None: the library's own default."""
    folder = data_folder(ctx)
    return f"{folder}/huggingface" if folder else None


def environment(ctx: Context) -> dict[str, str]:
    """Variables that send caches and temporary files to the data disk; empty where none is used.

    Caches and env on one file system let uv link files instead of copying them.
    """
    folder = data_folder(ctx)
    if folder is None:
        return {}
    return {"XDG_CACHE_HOME": f"{folder}/cache", "PIP_CACHE_DIR": f"{folder}/cache/pip",
            "UV_CACHE_DIR": f"{folder}/cache/uv", "CONDA_PKGS_DIRS": f"{folder}/pkgs", "TMPDIR": f"{folder}/tmp",
            "HF_HOME": f"{folder}/huggingface"}


@frozen
class Stop(Row):
    """What a stop of the machine does to a disk: whether it is kept, and the provider's rule in words. virt: only under
    this hypervisor."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {**Row.__pydantic_config__, **named(words="stop")}
    kept: Flag
    words: Text
    source: Text
    virt: Text | None = None


@frozen
class DisksFile(Row):
    """The form of disks.yml: mount → what a stop does to it."""

    disks: dict[Text, Stop]


@cache
def load_stops() -> dict[str, Stop]:
    """Mount → what a stop does to it (qwen_rig/data/disks.yml). Raises RigError where the data is wrong."""
    return load(DATA / "disks.yml", DisksFile).disks


def _stops(ctx: Context) -> dict[str, Stop]:
    """What is known of this machine's disks, by mount."""
    mounts, virt = {d.mount for d in ctx.machine.disks}, ctx.machine.virt
    return {mount: stop for mount, stop in load_stops().items() if mount in mounts and stop.virt in (None, virt)}


def _kept(ctx: Context, mount: str) -> bool:
    stop = _stops(ctx).get(mount)
    return stop is None or stop.kept


def caveats(ctx: Context, envs: str) -> list[str]:
    """What a stop of a rented machine would lose. Said while an env is still to be made."""
    disk, stops = disk_at(ctx, envs), _stops(ctx)
    known = [stop.words for stop in stops.values()]
    if ctx.machine.kind != "container":
        stop = stops.get(disk.mount) if disk else None
        if stop:
            return [] if stop.kept else [f"{stop.words}: env, caches and HF_HOME lie there"]
        if disk and disk.mount != "/" and ctx.machine.kind == "vm" and data_folder(ctx):
            return [f"env, caches and HF_HOME are on {disk.mount}: where this VM is rented, ask its provider "
                    "whether a stop keeps that disk"]
        return []
    if disk is None or disk.mount == "/":
        return ["env and caches are on the container's own disk (/): a provider that empties it at a stop takes them "
                "along; data_dir=FOLDER puts them on a disk that stays", *known]
    return [f"env, caches and HF_HOME are on {disk.mount}; all else on this container's / may go when it is "
            "stopped", *known]


def repository_at(ctx: Context) -> str:
    """Where NVIDIA's packages for this host's system are."""
    return repository_url(ctx.machine.os, ctx.knobs.source_nvidia_apt or ctx.rules.nvidia_apt.url)


def repository_known(ctx: Context) -> bool:
    """Whether it's known by which key NVIDIA's packages for this host's system are signed: by us, or by the user."""
    return (ctx.rules.driver_set(ctx.machine.os.id, ctx.machine.os.version_id) is not None
            and repository_key(ctx) is not None)


def repository_key(ctx: Context) -> AptKey | None:
    """The key that NVIDIA's packages for this host's system are trusted by: the user's, or the one that the system's
    row in rules.yml names. None: neither names one, and nothing is installed from there (`repository_known`)."""
    found = ctx.rules.driver_set(ctx.machine.os.id, ctx.machine.os.version_id)
    known = found.key if found else None
    if wanted := ctx.knobs.source_nvidia_apt_key:
        return AptKey(known.file if known else ctx.rules.nvidia_apt.own_file, wanted.replace(" ", "").upper())
    return known
