"""Where things come from by default: rig/data/sources.yml, one entry for each source_* knob, loaded and checked."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from . import schema

DATA = Path(__file__).parent / "data"


@dataclass(frozen=True)
class Miniforge:
    """The conda installer Miniforge3-<version>-Linux-x86_64.sh in the folder `url`. `bytes` 0: not known."""

    url: str
    version: str
    sha256: str
    bytes: int


@dataclass(frozen=True)
class AptKey:
    """A signing key: its file in the repository's folder, and its full fingerprint."""

    key: str
    fingerprint: str


@dataclass(frozen=True)
class NvidiaApt:
    """NVIDIA's apt repositories: `url`/<distribution>/x86_64/, and the key that signs each."""

    url: str
    key: str
    fingerprint: str
    keys: dict[str, AptKey]

    def key_for(self, folder: str) -> AptKey:
        """The key of a distribution's folder ("debian13")."""
        return self.keys.get(folder, AptKey(self.key, self.fingerprint))


@dataclass(frozen=True)
class Place:
    """A source that is only an address."""

    url: str


@dataclass(frozen=True)
class TorchIndex:
    """PyTorch's own index and that of its nightly builds, each with one folder per CUDA (cu128)."""

    url: str
    nightly: str


@dataclass(frozen=True)
class Sources:
    """The defaults of the source_* knobs. pip_index None: the client's own."""

    pip_index: str | None
    conda_channel: str
    miniforge: Miniforge
    nvidia_apt: NvidiaApt
    flash_attn: Place
    torch_index: TorchIndex


@cache
def load_sources() -> Sources:
    """Where things come from by default. Raises RigError naming file and key where the data is wrong."""
    table = schema.read(DATA / "sources.yml")
    pip, channel = table.table("source_pip_index"), table.table("source_conda_channel")
    forge = table.table("source_miniforge")
    torch = table.table("source_torch_index")
    apt, flash = table.table("source_nvidia_apt"), table.table("source_flash_attn")
    keys = {folder: AptKey(row.take("key", str), row.take("fingerprint", str))
            for folder, row in apt.named_tables("keys").items()}
    sources = Sources(
        pip_index=pip.maybe("url", str), conda_channel=channel.take("url", str),
        miniforge=Miniforge(forge.take("url", str), forge.take("version", str), forge.take("sha256", str),
                            forge.take("bytes", int)),
        nvidia_apt=NvidiaApt(apt.take("url", str), apt.take("key", str), apt.take("fingerprint", str), keys),
        flash_attn=Place(flash.take("url", str)),
        torch_index=TorchIndex(torch.take("pytorch", str), torch.take("nightly", str)))
    torch.maybe("url", str)
    for block in (pip, channel, forge, apt, flash, torch):
        block.take("source", str)
        block.done()
    table.done()
    return sources
