"""The small parts of a stack that other modules read. Imports nothing of what reads them."""

from __future__ import annotations

from dataclasses import dataclass

from qwen_rig.catalog.datafile import Flag, MaybeTexts, Row, Text, VersionText
from qwen_rig.frozen import frozen


def cuda_tag(cuda: str) -> str:
    """`cu128`: a CUDA release as wheels and indexes spell it."""
    return "cu" + cuda.replace(".", "")


@frozen
class Pin(Row):
    """A version that the stack insists on, and where it comes from."""

    version: VersionText
    source: Text


@dataclass(frozen=True, kw_only=True)
class Torch(Row):
    """The torch build: its release (None: whichever its index has), its CUDA, the GPU architectures it has code for,
    and the least glibc that its wheels run on (None: not known)."""

    release: VersionText | None = None
    cuda: VersionText
    archs: MaybeTexts = ()
    cxx11abi: Flag
    source: Text
    glibc: VersionText | None = None

    @property
    def name(self) -> str:
        """As people call it."""
        return self.release or "nightly"

    @property
    def cuda_tag(self) -> str:
        """`cu128`."""
        return cuda_tag(self.cuda)


@frozen
class Deviation(Row):
    """Where the stack leaves the guide, and why."""

    guide: Text
    ours: Text
    why: Text


@frozen
class Refused(Row):
    """Why the stack can't be installed at all, and the stack to take instead."""

    reason: Text
    nearest: Text


@frozen
class FlashRelease(Row):
    """A flash-attn release's own wheels: for which torch and Python, by which nvcc, with code for what, from which
    glibc on (None: not known)."""

    nvcc: VersionText
    torch: MaybeTexts = ()
    archs: MaybeTexts = ()
    glibc: VersionText | None = None
    pythons: MaybeTexts = ()
