"""What is built from source where no wheel will do, what proves a wheel, and their limits: qwen_rig/data/flash.yml."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from qwen_rig.catalog import datafile
from qwen_rig.catalog.datafile import DATA, Flag, MaybeTexts, Number, Row, Sha256, Text, Whole
from qwen_rig.frozen import frozen


@dataclass(frozen=True, kw_only=True)
class Source(Row):
    """Sources that make one wheel. `cuda`: they take torch and an nvcc; `archs`: FLASH_ATTN_CUDA_ARCHS's words that
    they know; `check`: what proves the wheel, a script of qwen_rig/host/ or `-m module`; `free_mib`: room
    that a build takes. `sdist` is at the package index."""

    package: Text
    version: Text
    sdist: Text
    sha256: Sha256 | None = None
    cuda: Flag
    archs: MaybeTexts = ()
    check: Text
    requires: MaybeTexts = ()
    free_mib: Whole
    source: Text


@dataclass(frozen=True, kw_only=True)
class OwnSource(Source):
    """The project's own sources, and how gently they are built."""

    free_source: Text
    nice: Whole
    oom_score: Whole


@frozen
class _Wheel(Row):
    version: Text
    sha256: Sha256
    source: Text


@frozen
class _Proof(Row):
    install_s: Whole
    import_s: Whole
    check_s: Whole
    source: Text
    faster_pct: Number
    faster_source: Text
    companions: dict[Text, _Wheel]


@frozen
class _Jobs(Row):
    at_most: Whole
    spare_mib: Whole
    each_mib: Whole
    source: Text


@frozen
class _Fleet(Row):
    leaders: Whole
    source: Text


@frozen
class FlashFile(Row):
    """The form of flash.yml."""

    proof: _Proof
    build: OwnSource
    jobs: _Jobs
    fleet: _Fleet


@frozen
class Companion:
    """A package that the built one imports and the stack's lock lacks."""

    name: str
    version: str
    sha256: str
    source: str


@frozen
class Bounds:
    """What proving and building may take. Seconds; `nice` and `oom_score` as nice(1) and proc(5) have them;
    `faster_pct`: by how much it must be faster than SDPA."""

    install_s: int
    import_s: int
    check_s: int
    nice: int
    oom_score: int
    companions: tuple[Companion, ...]
    faster_pct: float


@cache
def flash_file() -> FlashFile:
    """flash.yml. Raises RigError where the file is wrong."""
    return datafile.load(DATA / "flash.yml", FlashFile)


@cache
def load() -> tuple[Source, Bounds]:
    """The project's own sources and bounds. Raises RigError where the file is wrong."""
    proof, build = flash_file().proof, flash_file().build
    companions = tuple(Companion(name, row.version, row.sha256, row.source) for name, row in proof.companions.items())
    return build, Bounds(proof.install_s, proof.import_s, proof.check_s, build.nice, build.oom_score, companions,
                         proof.faster_pct)
