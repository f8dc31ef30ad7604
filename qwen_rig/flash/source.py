"""On which hosts flash-attn's sources can't be built, and why. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from packaging.version import Version

from qwen_rig.catalog.flash_build import Source
from qwen_rig.catalog.flash_wheels import LEAST
from qwen_rig.catalog.rules import arch_of
from qwen_rig.errors import RigError
from qwen_rig.flash import key, resources
from qwen_rig.frozen import frozen
from qwen_rig.host import flash_ready

HOST: Any = flash_ready  # it runs on hosts, as the same file, and carries no types


@frozen
class Room:
    """What of a host decides whether it can build. `nvccs`: releases that are there or that this run
    installs; `jobs`: as many as the user asks for, whatever the memory; `beside_glibc`: the least nvcc that compiles
    beside the host's glibc, where not any does."""

    capabilities: Sequence[Version | None]
    cores: float
    memory_mib: int
    nvccs: Sequence[str]
    least_nvcc: str
    compiler: bool
    glibc: str | None
    jobs: int | None = None
    beside_glibc: str | None = None


def unserved(source: Source, torch_cuda: str | None, room: Room) -> list[str]:
    """Why no build of these sources could serve that host, wherever it were built; [] where one may."""
    found = []
    if room.glibc is None:
        found.append("the glibc can't be told, so the hosts that the wheel serves aren't known")
    if source.cuda:
        found += _cards(source, room.capabilities)
        if torch_cuda is None:
            found.append("the stack has no torch")
    return found


def misfits(source: Source, torch_cuda: str | None, room: Room) -> list[str]:
    """Why these sources can't be built there, one line each; [] where they may. `torch_cuda`: None without torch."""
    found = []
    if not room.compiler:
        found.append("no C++ compiler, and none can be installed")
    if source.sha256 is None:
        found.append(f"no checksum is known for {source.sdist}")
    found += unserved(source, torch_cuda, room)
    if source.cuda and torch_cuda is not None:
        found += _nvcc(torch_cuda, room)
    try:
        if room.jobs is None:
            resources.jobs(room.cores, room.memory_mib)
    except RigError as error:
        found.append(error.what.removeprefix("no build: "))
    return found


def _cards(source: Source, capabilities: Sequence[Version | None]) -> list[str]:
    found = []
    for cc in sorted({cc for cc in capabilities if cc is not None}):
        words = key.words([cc])
        if not words:
            found.append(f"{arch_of(cc)}: flash-attn needs compute capability {LEAST} or more")
        elif words[0] not in source.archs:
            found.append(f"{arch_of(cc)}: {source.package} {source.version} can't be built for it")
    if not capabilities or None in capabilities:
        found.append("a GPU's compute capability isn't known")
    return found


def _nvcc(torch_cuda: str, room: Room) -> list[str]:
    if room.beside_glibc and Version(room.beside_glibc).major > Version(torch_cuda).major:
        return [f"glibc {room.glibc} takes nvcc ≥ {room.beside_glibc}, and torch for CUDA {torch_cuda} an older one"]
    try:
        HOST.choose_nvcc([(release, "") for release in room.nvccs], torch_cuda, room.least_nvcc)
    except HOST.Failed as error:
        return [str(error)]
    return []
