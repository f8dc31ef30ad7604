"""The form of a stack file: qwen_rig/data/stacks/NAME.yml, or one of the user's own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from qwen_rig.catalog.datafile import (
    NULL_IS_EMPTY,
    After,
    Flag,
    MaybeTexts,
    Row,
    Text,
    Texts,
    VersionText,
    Whole,
    checked,
    one_of,
    wrong,
)
from qwen_rig.catalog.flash_wheels import FlashAttn
from qwen_rig.catalog.stack_types import Deviation, Pin, Refused, Torch
from qwen_rig.catalog.yamlfile import YamlFile, read
from qwen_rig.frozen import frozen

MODELS = ("Qwen2", "Qwen3", "Qwen3Moe", "Qwen3_5", "Qwen3_5Moe")  # transformers' names of the families


@frozen
class _Disk(Row):
    env_mib: Whole
    cache_mib: Whole


@frozen
class _Advisory(Row):
    text: Text
    source: Text


def _some(packages: tuple[str, ...]) -> tuple[str, ...]:
    if not packages:
        raise wrong("is empty", "name torch and what must fit it")
    return packages


@frozen
class IndexRow(Row):
    """torch_index: what comes from an index of torch's own. `lock`: a file of hash lines of that index."""

    packages: Annotated[Texts, After(_some)]
    only: Flag
    pre: Flag
    why: Text
    lock: Text | None = None


@dataclass(frozen=True, kw_only=True)
class StackFile(Row):
    """What every stack says. `cuda`: only where there is no torch, whose own it is elsewhere. `model`: the family that
    the verification trains a tiny one of; `trains`: all that the stack knows, () where it doesn't say."""

    standin: Flag
    name: Text
    summary: Text
    torch: Torch | None
    cuda: VersionText | None = None
    pins: dict[Text, Pin]
    python: Text
    pythons: Texts
    rebuild: MaybeTexts = ()
    unpinned: MaybeTexts = ()
    sdists: MaybeTexts = ()
    model: Annotated[Text, one_of(*MODELS)] = MODELS[0]
    trains: Annotated[tuple[Annotated[Text, one_of(*MODELS)], ...], NULL_IS_EMPTY] = ()
    deviations: Annotated[tuple[Deviation, ...], NULL_IS_EMPTY] = ()
    advisories: Annotated[tuple[_Advisory, ...], NULL_IS_EMPTY] = ()
    flash_attn: FlashAttn | None = None
    torch_index: IndexRow | None = None


@dataclass(frozen=True, kw_only=True)
class RefusedFile(StackFile):
    """A stack that can't be installed: nothing of it is installed."""

    refused: Refused


@dataclass(frozen=True, kw_only=True)
class WholeFile(StackFile):
    """A stack that can be installed. `exclude_newer` is scripts/lock.py's business; `build_lock`: what its
    sdists are built with, where the common one (locks/build.lock.txt) lacks something."""

    lock: Text
    sizes: Text
    import_gate: Text
    disk: _Disk
    exclude_newer: Text
    build_lock: Text | None = None
    refused: None = None


def read_stack(path: Path) -> tuple[YamlFile, RefusedFile | WholeFile]:
    """(the file, what it says). Raises RigError for the first mistake."""
    file = read(path)
    refused = isinstance(file.data, dict) and file.data.get("refused") is not None
    found: RefusedFile | WholeFile = checked(file, RefusedFile) if refused else checked(file, WholeFile)
    if found.python not in found.pythons:
        raise file.error(f"python {found.python} isn't among pythons {', '.join(found.pythons)}", ("python",),
                         "add it, or take one of these")
    if found.torch is None and found.cuda is None:
        raise file.error("cuda is missing", (), "say which CUDA the driver must run; a stack with torch has torch.cuda")
    if found.torch is not None and found.cuda is not None:
        raise file.error("unknown key cuda", ("cuda",), "a stack with torch has torch.cuda")
    return file, found
