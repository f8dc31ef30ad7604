"""Which prebuilt flash-attn wheels may be attempted on a host, and why the others may not. Pure.

An attempt is all it is: the wheel is kept only if it imports and works there, else training uses SDPA.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from packaging.version import Version

from qwen_rig.catalog.rules import arch_of, covered
from qwen_rig.catalog.schema import Table
from qwen_rig.catalog.sources import load_sources
from qwen_rig.flash.build import Source, read_source

if TYPE_CHECKING:
    from qwen_rig.catalog.stack import Torch

LEAST = Version("8.0")  # "FlashAttention only supports Ampere GPUs or newer" (flash_api.cpp's own check)


@dataclass(frozen=True)
class Wheel:
    """A release asset. sha256 None: nobody vouches for it, so it isn't used without consent. bytes None: unknown."""

    name: str
    sha256: str | None
    bytes: int | None
    source: str


@dataclass(frozen=True)
class FlashAttn:
    """A stack's flash-attn: what its wheels were built for, as their names say; None where it doesn't matter.

    `check` is what proves it: a script of qwen_rig/host/, or `-m module`. `in_default_source` False: only a
    source_flash_attn of the user's own has it. `build`: sources of its own, in place of qwen_rig/data/flash.yml's.
    """

    package: str
    version: str
    torch: str | None
    cuda: str | None
    cxx11abi: bool | None
    glibc: str | None
    archs: tuple[str, ...]
    check: str
    in_default_source: bool
    source: str
    wheels: dict[str, Wheel]
    build: Source | None = None


def read(stack: Table) -> FlashAttn | None:
    """The flash_attn block of a stack file, None where it has none. Raises RigError."""
    if stack.raw.get("flash_attn") is None:
        stack.raw.pop("flash_attn", None)
        return None
    row = stack.table("flash_attn")
    wheels = {tag: _wheel(entry) for tag, entry in row.named_tables("wheels").items()}
    own = row.table("build") if row.raw.get("build") is not None else None
    build = read_source(own) if own else None
    if own:
        own.done()
    made = FlashAttn(
        package=row.take("package", str), version=row.take("version", str), torch=row.maybe_version("torch"),
        cuda=row.maybe("cuda", str), cxx11abi=row.maybe("cxx11abi", bool), glibc=row.maybe_version("glibc"),
        archs=row.texts("archs"), check=row.take("check", str),
        in_default_source=row.take("in_default_source", bool), source=row.take("source", str), wheels=wheels,
        build=build)
    row.done()
    return made


def _wheel(entry: Table) -> Wheel:
    sha256 = entry.maybe("sha256", str)
    if sha256 is not None and (len(sha256) != 64 or set(sha256) - set("0123456789abcdef")):
        raise entry.error(f"{entry.key('sha256')} must be 64 lower-case hex digits, not {sha256!r}")
    wheel = Wheel(entry.take("name", str), sha256, entry.maybe("bytes", int), entry.take("source", str))
    entry.done()
    return wheel


def candidates(flash: FlashAttn, torch: Torch | None, python: str, glibc: str | None,
               compute_capabilities: Sequence[Version | None], source: str | None = None,
               unverified: bool = False) -> tuple[list[dict[str, Any]], list[str]]:
    """(wheels to attempt as {name, url, sha256, bytes}, one line for each reason that rules the others out).

    `source` is the folder URL that holds v<version>/<wheel>; None takes the default of qwen_rig/data/sources.yml.
    `unverified`: a wheel that nobody vouches for counts too. A GPU of unknown compute capability rules nothing out:
    the check on the host decides.
    """
    why = _misfits(flash, torch, glibc, [cc for cc in compute_capabilities if cc is not None])
    tag = "cp" + python.replace(".", "")
    wheel = flash.wheels.get(tag) or flash.wheels.get("py3")
    if wheel is None:
        why.append(f"{flash.package} {flash.version} has no wheel for Python {python}")
    elif wheel.sha256 is None and not unverified:
        why.append(f"no checksum is known for {wheel.name}: it isn't used without flash_attn_unverified")
    if source is None and not flash.in_default_source:
        why.append(f"only a source_flash_attn of one's own has {flash.package}")
    if wheel is None or why:
        return [], why
    base = source or load_sources().flash_attn.url
    return [{"name": wheel.name, "url": f"{base.rstrip('/')}/v{flash.version}/{quote(wheel.name)}",
             "sha256": wheel.sha256, "bytes": wheel.bytes}], []


def others(torch: Torch | None, python: str, glibc: str | None,
           compute_capabilities: Sequence[Version | None]) -> list[dict[str, Any]]:
    """A third party's wheels that fit, none with a checksum: for those who say flash_attn_unverified."""
    found = []
    for other in load_sources().flash_attn_others if torch and torch.release else ():
        release = ".".join(str(torch.release if torch else "").split(".")[:2])
        one = FlashAttn("flash-attn", other.version, release, other.cuda.split(".")[0], None, other.glibc, other.archs,
                        "", True, other.url, {})
        if release in other.torch and torch and torch.cuda == other.cuda and not _misfits(
                one, torch, glibc, [cc for cc in compute_capabilities if cc is not None]):
            name = other.file.format(version=other.version, cuda=other.cuda.replace(".", ""), torch=release,
                                     tag="cp" + python.replace(".", ""))
            found.append({"name": name, "url": f"{other.url}/{quote(name)}", "sha256": None, "bytes": None})
    return found


def _misfits(flash: FlashAttn, torch: Torch | None, glibc: str | None, capabilities: list[Version]) -> list[str]:
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
