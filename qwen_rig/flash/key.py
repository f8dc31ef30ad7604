"""What makes two hosts' flash-attn builds the same, so that one of them builds for all. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from typing import Any

from packaging.version import Version

from qwen_rig.catalog.flash_wheels import LEAST
from qwen_rig.frozen import frozen


def words(capabilities: Iterable[Version]) -> tuple[str, ...]:
    """FLASH_ATTN_CUDA_ARCHS's words for these cards: it knows first members of a generation only, whose code runs on
    the later ones (8.0's on 8.6 and 8.9). Those that flash-attn can't serve are left out."""
    return tuple(f"{major}0" for major in sorted({found.major for found in capabilities if found >= LEAST}))


@frozen
class Key:
    """What a built wheel was built by and for. `glibc` is the builder's: what is linked against an older one runs on
    a newer one too, never the other way round. `torch` is the minor release ("2.8"), `cuda` torch's own ("12.8"),
    `python` "3.10", `archs` FLASH_ATTN_CUDA_ARCHS's words ("90", "120")."""

    package: str
    version: str
    torch: str
    cuda: str
    cxx11abi: bool
    python: str
    glibc: str
    archs: tuple[str, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "archs", tuple(sorted(set(self.archs), key=lambda arch: (len(arch), arch))))

    @property
    def name(self) -> str:
        """One folder's name: no two keys share one, whatever their texts hold."""
        words = [self.package, self.version, f"torch{self.torch}", f"cu{self.cuda}",
                 f"abi{str(self.cxx11abi).upper()}", f"cp{self.python}", f"glibc{self.glibc}",
                 f"sm{'-'.join(self.archs) or 'none'}"]
        return "_".join(re.sub(r"[^A-Za-z0-9.+-]", lambda found: f"%{ord(found[0]):02x}", word) for word in words)

    def serves(self, wanted: Key) -> bool:
        """Whether a wheel of this key may be used where `wanted` is: built on the same or an older glibc, and for
        those architectures at least. All else must be equal."""
        return replace(self, glibc=wanted.glibc, archs=wanted.archs) == wanted and \
            Version(self.glibc) <= Version(wanted.glibc) and set(wanted.archs) <= set(self.archs)

    def to_json(self) -> dict[str, Any]:
        """Plain data, for a record."""
        return {**asdict(self), "archs": list(self.archs)}

    @staticmethod
    def from_json(raw: Mapping[str, Any]) -> Key:
        """Back from plain data. Raises KeyError, TypeError or ValueError where it is none."""
        archs: Iterable[Any] = raw["archs"]
        texts = {name: str(raw[name]) for name in ("package", "version", "torch", "cuda", "python", "glibc")}
        return Key(**texts, cxx11abi=bool(raw["cxx11abi"]), archs=tuple(str(arch) for arch in archs))


@frozen
class Known:
    """A wheel that is kept here: what it was built for, its sha256, the host that built it."""

    key: Key
    sha256: str
    host: str
