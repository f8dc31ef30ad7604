"""flash-attn 2 as Hugging Face's kernel, a rung of its own: which build fits a host, at which commit, and the sha256 of
each of its files. Pure.

transformers takes it by the name of its repository (`attn_implementation: kernels-community/flash-attn2`), out of a
folder that LOCAL_KERNELS names, so that nobody asks the Hub when training begins.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Annotated

from packaging.version import Version

from qwen_rig.catalog.datafile import DATA, After, Row, Sha256, Text, Whole, load, wrong
from qwen_rig.catalog.flash_wheels import Candidate, FlashAttn, misfits
from qwen_rig.catalog.sources import HubKernel, load_sources
from qwen_rig.catalog.stack_types import Pin, Torch
from qwen_rig.catalog.yamlfile import shown
from qwen_rig.frozen import frozen

RUNG = "kernel"
CHECK = "flash_attn_check.py"


def _path(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*(/[A-Za-z0-9_][A-Za-z0-9_.+-]*)*", text):
        raise wrong(f"can't be {shown(text)}", "name a file below the build's folder")
    return text


def _commit(text: str) -> str:
    if not re.fullmatch(r"[0-9a-f]{40}", text):
        raise wrong(f"must be a commit, 40 lower-case hex digits, not {shown(text)}")
    return text


@frozen
class KernelFile(Row):
    """One file of a build."""

    path: Annotated[Text, After(_path)]
    sha256: Sha256
    bytes: Whole


@frozen
class KernelLock(Row):
    """The form of the file that `make pins` writes: build → its files, at that commit."""

    repo: Text
    revision: Annotated[Text, After(_commit)]
    source: Text
    builds: dict[Text, tuple[KernelFile, ...]]


@cache
def load_kernel_lock(name: str) -> KernelLock:
    """A kernel's lock. Raises RigError where the file is wrong."""
    return load(DATA / "locks" / name, KernelLock)


def kernel(pins: Mapping[str, Pin], torch: Torch | None, glibc: str | None,
           compute_capabilities: Sequence[Version | None]) -> Candidate | None:
    """The kernel as a rung, closed (without address and sha256) until its files are known; None where none fits."""
    row = load_sources().flash_attn.kernel
    build = _build(row, torch)
    known = [cc for cc in compute_capabilities if cc is not None]
    form = FlashAttn(package="", version=row.branch, glibc=row.glibc, archs=row.archs, check="", in_default_source=True,
                     source="", wheels={})
    if build is None or not has(pins, row.needs) or misfits(form, torch, glibc, known):
        return None
    lock = load_kernel_lock(row.lock) if row.lock else None
    files = lock.builds.get(build, ()) if lock else ()
    if lock is None or not files:
        return Candidate(f"{row.repo} {row.branch}, {build}", "", None, rung=RUNG)
    sums = "".join(f"{file.sha256}  {file.path}\n" for file in files)
    version = f"{row.branch} at {lock.revision[:12]}"
    return Candidate(
        f"{row.repo} {version}, {build}", f"kernels/{row.repo}/resolve/{lock.revision}/build/{build}",
        hashlib.sha256(sums.encode()).hexdigest(), sum(file.bytes for file in files), RUNG, own={
            "attention": row.repo, "package": "", "check": CHECK, "companions": [], "build": build, "version": version,
            "files": [{"path": file.path, "sha256": file.sha256} for file in files]})


def has(pins: Mapping[str, Pin], needs: Mapping[str, str]) -> bool:
    """Whether a stack pins each of these packages in that version or a newer one."""
    return all(name in pins and Version(pins[name].version) >= Version(least) for name, least in needs.items())


def _build(row: HubKernel, torch: Torch | None) -> str | None:
    """The build for that torch: of its CUDA's major, and not newer."""
    if torch is None or not torch.release or Version(torch.release) < Version(row.torch):
        return None
    have = Version(torch.cuda)
    able = [cuda for cuda in map(Version, row.cuda) if cuda.major == have.major and cuda <= have]
    return row.variant.format(cuda=f"{max(able).major}{max(able).minor}") if able else None
