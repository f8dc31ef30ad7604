"""Which prebuilt flash-attn wheels may be attempted on a host, and why the others may not. Pure.

An attempt is all it is: the wheel is kept only if it imports and works there, else training uses SDPA.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from packaging.version import Version

from qwen_rig.catalog.datafile import Flag, MaybeTexts, Row, Sha256, Text, VersionText, Whole
from qwen_rig.catalog.flash_build import Source
from qwen_rig.catalog.rules import arch_of, covered
from qwen_rig.catalog.sources import OtherWheels, load_sources
from qwen_rig.catalog.stack_types import Torch
from qwen_rig.frozen import frozen

LEAST = Version("8.0")  # "FlashAttention only supports Ampere GPUs or newer" (flash_api.cpp's own check)


@frozen
class Wheel(Row):
    """A release asset. sha256 None: nobody vouches for it, so it isn't used without consent. bytes None: unknown."""

    name: Text
    source: Text
    sha256: Sha256 | None = None
    bytes: Whole | None = None


@frozen
class Candidate:
    """A wheel to attempt, at an address ("" where its index wasn't asked for it yet). `sha256`, `bytes` None: not
    known; `rung`: which of flash-attn's rungs it is of; `built`: who built it, of one that a host of this controller
    did; `own`: what attention.py is to do otherwise than for a wheel of the stack's flash-attn."""

    name: str
    url: str
    sha256: str | None
    bytes: int | None = None
    rung: str = "wheel"
    built: Mapping[str, Any] | None = None
    own: Mapping[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """As qwen_rig/host/attention.py is told of it."""
        more = {key: dict(each) for key, each in (("built", self.built), ("own", self.own)) if each is not None}
        return {**self.pinned(), "rung": self.rung, **more}

    def pinned(self) -> dict[str, Any]:
        """What tells it from another: name, address and bytes."""
        return {"name": self.name, "url": self.url, "sha256": self.sha256, "bytes": self.bytes}


@dataclass(frozen=True, kw_only=True)
class FlashAttn(Row):
    """A stack's flash-attn: what its wheels were built for, as their names say; None where it doesn't matter.

    `check` is what proves it: a script of qwen_rig/host/, or `-m module`. `in_default_source` False: only a
    source_flash_attn of the user's own has it. `build`: sources of its own, in place of qwen_rig/data/flash.yml's.
    """

    package: Text
    version: Text
    torch: VersionText | None = None
    cuda: Text | None = None
    cxx11abi: Flag | None = None
    glibc: VersionText | None = None
    archs: MaybeTexts = ()
    check: Text
    in_default_source: Flag
    source: Text
    wheels: dict[Text, Wheel]
    build: Source | None = None


def candidates(flash: FlashAttn, torch: Torch | None, python: str, glibc: str | None,
               compute_capabilities: Sequence[Version | None], source: str | None = None,
               unverified: bool = False) -> tuple[list[Candidate], list[str]]:
    """(wheels to attempt, one line for each reason that rules the others out).

    `source` is the folder URL that holds v<version>/<wheel>; None takes the default of qwen_rig/data/sources.yml.
    `unverified`: a wheel that nobody vouches for counts too. A GPU of unknown compute capability rules nothing out:
    the check on the host decides.
    """
    why = misfits(flash, torch, glibc, [cc for cc in compute_capabilities if cc is not None])
    tag = "cp" + python.replace(".", "")
    wheel = flash.wheels.get(tag) or flash.wheels.get("py3")
    if wheel is None:
        why.append(f"{flash.package} {flash.version} has no wheel for Python {python}")
    elif wheel.sha256 is None and not unverified:
        why.append(f"no checksum is known for {wheel.name}: it isn't used without flash_attn_unverified")
    if source is None and not flash.in_default_source:
        why.append(f"only your own source_flash_attn has {flash.package}")
    if wheel is None or why:
        return [], why
    base = source or load_sources().flash_attn.url
    url = f"{base.rstrip('/')}/v{flash.version}/{quote(wheel.name)}"
    return [Candidate(wheel.name, url, wheel.sha256, wheel.bytes)], []


def others(torch: Torch | None, python: str, glibc: str | None,
           compute_capabilities: Sequence[Version | None]) -> list[Candidate]:
    """A third party's wheels that fit; without a sha256 it is closed but for those who say flash_attn_unverified."""
    found = []
    for other in load_sources().flash_attn_others if torch and torch.release else ():
        release = ".".join(str(torch.release if torch else "").split(".")[:2])
        one = FlashAttn(package="flash-attn", version=other.version, torch=release, cuda=other.cuda.split(".")[0],
                        glibc=other.glibc, archs=other.archs, check="", in_default_source=True, source=other.url,
                        wheels={})
        if release in other.torch and torch and torch.cuda == other.cuda and not misfits(
                one, torch, glibc, [cc for cc in compute_capabilities if cc is not None]):
            name = other.name(release, python)
            if other.index:
                found += _of_index(other, name)
            else:
                found.append(Candidate(name, f"{other.url}/{quote(name)}", other.pinned.get(name)))
    return found


def _of_index(other: OtherWheels, begins: str) -> list[Candidate]:
    """The pinned wheels of an index whose names begin so; one without an address where there are none."""
    return [Candidate(name, other.addresses[name], sha256) for name, sha256 in other.pinned.items()
            if name.startswith(begins) and name in other.addresses] or [Candidate(begins.rstrip("-"), "", None)]


def misfits(flash: FlashAttn, torch: Torch | None, glibc: str | None, capabilities: list[Version]) -> list[str]:
    """What of the host or the stack the wheels weren't built for."""
    found = []
    for cc in sorted(set(capabilities)):
        if cc < LEAST:
            found.append(f"{arch_of(cc)}: flash-attn needs compute capability 8.0 or more")
        elif flash.archs and not covered(flash.archs, cc):
            found.append(f"{arch_of(cc)}: the wheel has code for {', '.join(flash.archs)} only")
    if flash.glibc and glibc and Version(glibc) < Version(flash.glibc):
        found.append(f"glibc {glibc}: the wheel needs {flash.glibc} or newer")
    if flash.torch is None:
        return found
    if torch is None:
        return [*found, "the stack has no torch"]
    if torch.release and Version(torch.release).release[:2] != Version(flash.torch).release[:2]:
        found.append(f"torch {torch.release}: the wheel is for torch {flash.torch}")
    if flash.cuda and torch.cuda.split(".")[0] != flash.cuda:
        found.append(f"CUDA {torch.cuda}: the wheel is for CUDA {flash.cuda}")
    if flash.cxx11abi is not None and flash.cxx11abi != torch.cxx11abi:
        found.append(f"C++ ABI: torch has cxx11abi {str(torch.cxx11abi).upper()}, the wheel is for "
                     f"{str(flash.cxx11abi).upper()}")
    return found
