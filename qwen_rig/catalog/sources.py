"""Where things come from by default: qwen_rig/data/sources.yml, an entry for each source_* knob, checked."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Annotated, ClassVar, TypeVar

from qwen_rig import strictjson
from qwen_rig.catalog.datafile import (
    DATA,
    After,
    Flag,
    MaybeTexts,
    Row,
    Sha256,
    Text,
    VersionText,
    Whole,
    checked,
    load,
    wrong,
)
from qwen_rig.catalog.yamlfile import given, shown
from qwen_rig.frozen import frozen

ROLES = ("pip_index", "conda_channel", "miniforge", "torch_find_links", "torch_index", "huggingface")


@frozen
class _PipIndex(Row):
    source: Text
    url: Text | None = None


@frozen
class _CondaChannel(Row):
    url: Text
    measure: Text
    source: Text


@frozen
class Miniforge(Row):
    """The conda installer Miniforge3-<version>-Linux-x86_64.sh in the folder `url`. `bytes` None: not known."""

    url: Text
    version: Text
    sha256: Text
    source: Text
    bytes: Whole | None = None


@frozen
class AptKey(Row):
    """A signing key: its file in the repository's folder, its full fingerprint, and why it isn't the older one."""

    file: Text
    fingerprint: Text
    why: Text | None = None


@frozen
class NvidiaApt(Row):
    """NVIDIA's apt repositories: `url`/<distribution>/x86_64/, the keys that sign them, and the file of a key of the
    user's own."""

    url: Text
    keys: dict[Text, AptKey]
    own_file: Text
    source: Text
    keys_source: Text

    def keyring(self, fingerprint: str) -> str | None:
        """The armored keyring of that key that comes with the project; None for a key that isn't NVIDIA's."""
        known = {key.fingerprint for key in self.keys.values()}
        return (DATA / "keys" / f"{fingerprint}.asc").read_text(encoding="ascii") if fingerprint in known else None


@frozen
class OtherWheels(Row):
    """A third party's flash-attn wheels. `file`: their names, by version, cuda (128), cuda_dotted (12.8), torch (2.8),
    tag (cp310); `pinned`: those of which we hold the sha256, by name. All others are closed without consent.

    `index`: `url` is a package's page of an index, and names begin with `file`; `addresses` has those that are pinned.
    """

    url: Text
    file: Text
    version: Text
    cuda: Text
    glibc: Text
    source: Text
    torch: MaybeTexts = ()
    archs: MaybeTexts = ()
    pinned: dict[Text, Sha256] = field(default_factory=dict)
    index: Flag = False
    addresses: dict[Text, Text] = field(default_factory=dict)

    def name(self, torch: str, python: str) -> str:
        """A wheel's name for that release of torch ("2.8") and Python ("3.10"); of an index how it begins."""
        return self.file.format(version=self.version, cuda=self.cuda.replace(".", ""), cuda_dotted=self.cuda,
                                torch=torch, tag="cp" + python.replace(".", ""))


@frozen
class HubKernel(Row):
    """flash-attn 2 as Hugging Face's kernel. `branch`: of its repository, which `make pins` follows to a commit;
    `variant`: the name of a build, by cuda (130); `torch`: that release or a newer one; `needs`: packages of the stack;
    `lock`: the file in qwen_rig/data/locks that has each file's sha256, None: closed."""

    repo: Text
    branch: Text
    variant: Text
    torch: VersionText
    glibc: VersionText
    source: Text
    cuda: MaybeTexts
    archs: MaybeTexts
    needs: dict[Text, VersionText]
    lock: Text | None = None


@frozen
class FlashAttnPlaces(Row):
    """Where flash-attn's own wheels are, its repository, and who else builds it."""

    url: Text
    git: Text
    others: dict[Text, OtherWheels]
    kernel: HubKernel
    source: Text


@frozen
class TorchIndex(Row):
    """PyTorch's own index and that of its nightly builds, each with one folder per CUDA (cu128)."""

    pytorch: Text
    nightly: Text
    source: Text
    url: Text | None = None


@frozen
class HuggingFace(Row):
    """The default endpoint, and a small public file below it."""

    url: Text
    measure: Text
    source: Text


def _address(*words: str) -> After:
    """A check: the text is a URL, with no other placeholders than these."""
    def check(address: str) -> str:
        try:
            address.format(**dict.fromkeys(words, ""))
        except (LookupError, ValueError, AttributeError):
            raise wrong(f"has a placeholder that nothing is known for: {address}",
                        "it takes " + (" and ".join(f"{{{word}}}" for word in words) or "none")) from None
        if not re.fullmatch(r"https?://[^\s'\"\\@]+", address):
            raise wrong(f"must be a URL, not {shown(address)}", "begin it with https:// or http://")
        return address
    return After(check)


_Plain = Annotated[Text, _address()]
_ForCuda = Annotated[Text, _address("cuda")]


@dataclass(frozen=True, kw_only=True)
class OwnMirror(Row):
    """Role → address, of a mirror of the user's own, which needs no source."""

    pip_index: _Plain | None = None
    conda_channel: _Plain | None = None
    miniforge: Annotated[Text, _address("version")] | None = None
    torch_find_links: _ForCuda | None = None
    torch_index: _ForCuda | None = None
    huggingface: _Plain | None = None

    @property
    def addresses(self) -> dict[str, str]:
        """Those that it has."""
        return {role: address for role in ROLES if (address := getattr(self, role))}


@dataclass(frozen=True, kw_only=True)
class Mirror(OwnMirror):
    """A mirror as a file names it."""

    source: Text


def _mirror_name(name: str) -> str:
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,30}", name) or name == "default":
        raise wrong(f"has the name {shown(name)}", "lower-case letters, digits and dashes only")
    return name


MirrorName = Annotated[Text, After(_mirror_name)]


@frozen
class MirrorsFile(Row):
    """The form of a file that the knob `mirrors` names."""

    mirrors: dict[MirrorName, Mirror]


@frozen
class OwnMirrors(Row):
    """The form of the knob `mirrors` where they are written out in it."""

    mirrors: dict[MirrorName, OwnMirror]


def _key(field: str) -> str:
    """The key in sources.yml of a field of Sources: its knob's name."""
    return {"named_mirrors": "mirrors"}.get(field, field if field.startswith("source_") else f"source_{field}")


@frozen
class Sources(Row):
    """The defaults of the source_* knobs, in the form of sources.yml."""

    __pydantic_config__: ClassVar = {"extra": "forbid", "alias_generator": _key}

    source_pip_index: _PipIndex
    source_conda_channel: _CondaChannel
    miniforge: Miniforge
    nvidia_apt: NvidiaApt
    flash_attn: FlashAttnPlaces
    torch_index: TorchIndex
    huggingface: HuggingFace
    named_mirrors: dict[MirrorName, Mirror]

    @property
    def pip_index(self) -> str | None:
        """None: the client's own."""
        return self.source_pip_index.url

    @property
    def conda_channel(self) -> str:
        """A name or an address."""
        return self.source_conda_channel.url

    @property
    def conda_measure(self) -> str:
        """The channel's address, where conda_channel is a name."""
        return self.source_conda_channel.measure

    @property
    def flash_attn_others(self) -> tuple[OtherWheels, ...]:
        """Third parties' flash-attn wheels."""
        return tuple(self.flash_attn.others.values())

    @property
    def mirrors(self) -> dict[str, dict[str, str]]:
        """Name → role (of ROLES) → address."""
        return _addresses(self.named_mirrors)


_M = TypeVar("_M", bound=OwnMirror)


def _addresses(mirrors: Mapping[str, _M]) -> dict[str, dict[str, str]]:
    return {name: mirror.addresses for name, mirror in mirrors.items()}


@cache
def load_mirrors(wanted: str) -> dict[str, dict[str, str]]:
    """The mirrors that the knob `mirrors` names: auto: ours; off: none; {name: {role: address}} as JSON: those; else
    those of a file. Raises RigError."""
    if wanted == "off":
        return {}
    if wanted == "auto":
        return load_sources().mirrors
    if wanted.startswith("{"):
        block = strictjson.read(wanted, "--data", 'mirrors={"lan": {"pip_index": "https://…"}}',
                                what="mirrors is no JSON")
        return _addresses(checked(given({"mirrors": block}, "the knob"), OwnMirrors).mirrors)
    return _addresses(load(Path(wanted), MirrorsFile).mirrors)


@cache
def load_sources() -> Sources:
    """Where things come from by default. Raises RigError naming file and key where the data is wrong."""
    return load(DATA / "sources.yml", Sources)
