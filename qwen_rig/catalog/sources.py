"""Where things come from by default: qwen_rig/data/sources.yml, an entry for each source_* knob, checked."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from qwen_rig.catalog import schema
from qwen_rig.errors import RigError

DATA = Path(__file__).parents[1] / "data"


@dataclass(frozen=True)
class Miniforge:
    """The conda installer Miniforge3-<version>-Linux-x86_64.sh in the folder `url`. `bytes` None: not known."""

    url: str
    version: str
    sha256: str
    bytes: int | None


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
class OtherWheels:
    """A third party's flash-attn wheels. `file`: their names, by version, cuda (128), torch (2.8), tag (cp310)."""

    url: str
    file: str
    version: str
    torch: tuple[str, ...]
    cuda: str
    glibc: str
    archs: tuple[str, ...]


@dataclass(frozen=True)
class TorchIndex:
    """PyTorch's own index and that of its nightly builds, each with one folder per CUDA (cu128)."""

    url: str
    nightly: str


@dataclass(frozen=True)
class HuggingFace:
    """The default endpoint, and a small public file below it."""

    url: str
    measure: str


PLACEHOLDERS = {"miniforge": ("version",), "torch_find_links": ("cuda",), "torch_index": ("cuda",)}  # role → what fits
ROLES = ("pip_index", "conda_channel", "miniforge", "torch_find_links", "torch_index", "huggingface")


@dataclass(frozen=True)
class Sources:
    """The defaults of the source_* knobs. pip_index None: the client's own. conda_measure is the channel's address,
    where conda_channel is a name. mirrors: name → role (of ROLES) → address."""

    pip_index: str | None
    conda_channel: str
    conda_measure: str
    miniforge: Miniforge
    nvidia_apt: NvidiaApt
    flash_attn: Place
    flash_attn_others: tuple[OtherWheels, ...]
    flash_attn_git: Place
    torch_index: TorchIndex
    huggingface: HuggingFace
    mirrors: dict[str, dict[str, str]]


def read_mirrors(table: schema.Table, own: bool = False) -> dict[str, dict[str, str]]:
    """A `mirrors` block: name → role → address. own: of the user's, which needs no source. Raises RigError."""
    found = {}
    for name, row in table.named_tables("mirrors").items():
        if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,30}", name) or name == "default":
            raise row.error(f"mirrors has the name {name!r}", "lower-case letters, digits and dashes only")
        found[name] = {role: address for role in ROLES if (address := row.maybe(role, str))}
        for role, address in found[name].items():
            words = PLACEHOLDERS.get(role, ())
            try:
                address.format(**dict.fromkeys(words, ""))
            except (LookupError, ValueError, AttributeError):
                raise row.error(f"{row.key(role)} has a placeholder that nothing is known for: {address}",
                                "it takes " + (" and ".join(f"{{{word}}}" for word in words) or "none")) from None
            if not re.fullmatch(r"https?://[^\s'\"\\@]+", address):
                raise row.error(f"{row.key(role)} must be a URL, not {address!r}", "begin it with https:// or http://")
        if not own:
            row.take("source", str)
        row.done()
    return found


@cache
def load_mirrors(wanted: str) -> dict[str, dict[str, str]]:
    """The mirrors that the knob `mirrors` names: auto: ours; off: none; {name: {role: address}} as JSON: those; else
    those of a file. Raises RigError."""
    if wanted == "off":
        return {}
    if wanted == "auto":
        return load_sources().mirrors
    if wanted.startswith("{"):
        try:
            block = json.loads(wanted)
        except ValueError as error:
            remedy = 'mirrors={"lan": {"pip_index": "https://…"}}'
            raise RigError(f"mirrors is no JSON ({error})", "--data", remedy) from None
        return read_mirrors(schema.Table(Path("the knob"), {"mirrors": block}), own=True)
    table = schema.read(Path(wanted).expanduser())
    found = read_mirrors(table)
    table.done()
    return found


def _others(row: schema.Table) -> OtherWheels:
    made = OtherWheels(row.take("url", str), row.take("file", str), row.take("version", str), row.texts("torch"),
                       row.take("cuda", str), row.take("glibc", str), row.texts("archs"))
    row.take("source", str)
    row.done()
    return made


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
    face = table.table("source_huggingface")
    sources = Sources(
        pip_index=pip.maybe("url", str), conda_channel=channel.take("url", str),
        conda_measure=channel.take("measure", str),
        miniforge=Miniforge(forge.take("url", str), forge.take("version", str), forge.take("sha256", str),
                            forge.maybe("bytes", int)),
        nvidia_apt=NvidiaApt(apt.take("url", str), apt.take("key", str), apt.take("fingerprint", str), keys),
        flash_attn=Place(flash.take("url", str)),
        flash_attn_others=tuple(map(_others, flash.named_tables("others").values())),
        flash_attn_git=Place(flash.take("git", str)),
        torch_index=TorchIndex(torch.take("pytorch", str), torch.take("nightly", str)),
        huggingface=HuggingFace(face.take("url", str), face.take("measure", str)), mirrors=read_mirrors(table))
    torch.maybe("url", str)
    for block in (pip, channel, forge, apt, flash, torch, face):
        block.take("source", str)
        block.done()
    table.done()
    return sources
