"""What is built from source where no wheel will do, what proves a wheel, and their limits: qwen_rig/data/flash.yml."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from qwen_rig.catalog import schema
from qwen_rig.catalog.schema import Table
from qwen_rig.flash.resources import DATA


@dataclass(frozen=True)
class Source:
    """Sources that make one wheel. `cuda`: they take torch and an nvcc; `archs`: FLASH_ATTN_CUDA_ARCHS's words that
    they know; `check`: what proves the wheel, a script of qwen_rig/host/ or `-m module`; `free_mib`: room
    that a build takes. `sdist` is at the package index."""

    package: str
    version: str
    sdist: str
    sha256: str | None
    cuda: bool
    archs: tuple[str, ...]
    check: str
    requires: tuple[str, ...]
    free_mib: int
    source: str


@dataclass(frozen=True)
class Companion:
    """A package that the built one imports and the stack's lock lacks."""

    name: str
    version: str
    sha256: str
    source: str


@dataclass(frozen=True)
class Bounds:
    """What proving and building may take. Seconds; `nice` and `oom_score` as nice(1) and proc(5) have them."""

    install_s: int
    import_s: int
    check_s: int
    nice: int
    oom_score: int
    companions: tuple[Companion, ...]


def read_source(row: Table) -> Source:
    """One `build` block. Raises RigError."""
    made = Source(row.take("package", str), row.take("version", str), row.take("sdist", str),
                  row.maybe("sha256", str), row.take("cuda", bool), row.texts("archs"), row.take("check", str),
                  row.texts("requires"), row.take("free_mib", int), row.take("source", str))
    if made.sha256 is not None and (len(made.sha256) != 64 or set(made.sha256) - set("0123456789abcdef")):
        raise row.error(f"{row.key('sha256')} must be 64 lower-case hex digits, not {made.sha256!r}")
    return made


@cache
def load() -> tuple[Source, Bounds]:
    """The project's own sources and bounds. Raises RigError where the file is wrong."""
    table = schema.read(DATA)
    build, proof = table.table("build"), table.table("proof")
    companions = []
    for name, row in proof.named_tables("companions").items():
        companions.append(Companion(name, row.take("version", str), row.take("sha256", str), row.take("source", str)))
        row.done()
    proof.take("source", str)
    build.take("free_source", str)
    bounds = Bounds(proof.take("install_s", int), proof.take("import_s", int), proof.take("check_s", int),
                    build.take("nice", int), build.take("oom_score", int),
                    tuple(companions))
    source = read_source(build)
    for block in (build, proof):
        block.done()
    return source, bounds
