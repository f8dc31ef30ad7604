"""What a host shall run: a stack's pins, lock, torch build, flash-attn wheels and what must be said of it.

Data in qwen_rig/data/stacks/NAME.yml, checked here. The lock and the stack file agree, or loading fails.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name
from packaging.version import Version

from qwen_rig import flash
from qwen_rig.catalog import advisories, schema, torch_build, torch_index
from qwen_rig.catalog.advisories import Advisory
from qwen_rig.catalog.lock import Entry, Requirement, read_lock, read_sizes, select
from qwen_rig.catalog.schema import Table
from qwen_rig.catalog.torch_index import Apart, TorchIndex
from qwen_rig.errors import RigError
from qwen_rig.flash import FlashAttn
from qwen_rig.flash.build import Source, load

DATA = Path(__file__).parents[1] / "data"
MODELS = ("Qwen2", "Qwen3")  # transformers' names of the families


@dataclass(frozen=True)
class Pin:
    """A version that the stack insists on, and where it comes from."""

    version: str
    source: str


@dataclass(frozen=True)
class Torch:
    """The torch build: its release (None: whichever its index has), its CUDA, the GPU architectures it has code for,
    and the least glibc that its wheels run on (None: not known)."""

    release: str | None
    cuda: str
    archs: tuple[str, ...]
    cxx11abi: bool
    source: str
    glibc: str | None = None

    @property
    def name(self) -> str:
        """As people call it."""
        return self.release or "nightly"


@dataclass(frozen=True)
class Deviation:
    """Where the stack leaves the guide, and why."""

    guide: str
    ours: str
    why: str


@dataclass(frozen=True)
class Refused:
    """Why the stack can't be had at all, and the stack to take instead."""

    reason: str
    nearest: str


@dataclass(frozen=True)
class Stack:
    """A loaded, checked stack. Sizes are MiB for disk, bytes for downloads."""

    name: str
    path: Path
    summary: str
    standin: bool
    python: str
    pythons: tuple[str, ...]
    cuda: str
    torch: Torch | None
    pins: dict[str, Pin]
    unpinned: tuple[str, ...]
    rebuild: tuple[str, ...]
    sdists: tuple[str, ...]
    import_gate: str
    model: str
    env_mib: int
    cache_mib: int
    deviations: tuple[Deviation, ...]
    advisories: tuple[Advisory, ...]
    flash_attn: FlashAttn | None
    torch_index: TorchIndex | None
    refused: Refused | None
    lock: Path | None
    entries: tuple[Entry, ...]

    @property
    def cuda_tag(self) -> str:
        """`cu128`: the CUDA release as wheels and indexes spell it."""
        return "cu" + self.cuda.replace(".", "")

    @property
    def disk_mib(self) -> int:
        """What building one env takes: the env itself and the downloads kept beside it."""
        return self.env_mib + self.cache_mib

    @cached_property
    def lock_sha256(self) -> str:
        """Of the lock file's bytes; an env is named after it. Raises RigError for a refused stack."""
        return hashlib.sha256(self.lock_text.encode()).hexdigest()

    @property
    def lock_id(self) -> str:
        """The first 12 hex digits of lock_sha256."""
        return self.lock_sha256[:12]

    @cached_property
    def lock_text(self) -> str:
        """The lock as pip and uv read it. Raises RigError for a refused stack."""
        self.check()
        assert self.lock is not None  # only a refused stack has none
        return self.lock.read_text(encoding="utf-8")

    def check(self, python: str | None = None) -> None:
        """Raises RigError where the stack as such, or on that Python, can't be had."""
        if self.refused:
            raise refusal(self)
        if python is not None and python not in self.pythons:
            raise RigError(f"stack {self.name} has no lock for Python {python}", str(self.path),
                           f"set python to one of {', '.join(self.pythons)}")

    def requirements(self, python: str) -> dict[str, Requirement]:
        """Every package that belongs in the env on that Python ("3.10"), by canonical name. Raises RigError."""
        self.check(python)
        return select(self.entries, python)

    def bytes_for(self, names: Iterable[str], python: str) -> int | None:
        """Bytes to download for these packages, None where the lock lacks a size; a name it lacks counts nothing."""
        wanted = self.requirements(python)
        sizes = [wanted[name].bytes for name in names if name in wanted]
        known = [size for size in sizes if size is not None]
        return sum(known) if len(known) == len(sizes) else None

    def lock_for(self, names: Iterable[str], python: str) -> str:
        """A lock of these packages alone, for mending them in place with --no-deps --require-hashes."""
        wanted = self.requirements(python)
        lines = [" ".join([f"{name}=={wanted[name].version}", *(f"--hash={each}" for each in wanted[name].hashes)])
                 for name in sorted(names) if name in wanted]
        return "".join(f"{line}\n" for line in lines)

    def advised(self, python: str) -> tuple[Advisory, ...]:
        """What is known of the stack and of the versions in its lock."""
        return (*self.advisories,
                *advisories.about({name: r.version for name, r in self.requirements(python).items()}))

    def apart(self, source: str | None, python: str) -> Apart | None:
        """What comes from an index of torch's own (`source`: the knob source_torch_index), None where nothing does."""
        return torch_index.apart(self, source, python)

    def lock_beside(self, apart: Apart | None, python: str) -> str:
        """The lock to install first where something comes apart from it: all but that. The whole lock where nothing
        does."""
        if apart is None:
            return self.lock_text
        return self.lock_for((name for name in self.requirements(python) if name not in apart.names), python)

    def expect(self, python: str, gpu: bool = True) -> dict[str, Any]:
        """What qwen_rig/host/verify.py is told to look for (its --expect). `gpu` False: none is expected to answer."""
        torch = self.torch
        return {
            "stack": self.name, "standin": self.standin, "python": python, "gpu": gpu,
            "packages": {name: r.version for name, r in sorted(self.requirements(python).items())},
            "torch": {"release": torch.release, "cuda": torch.cuda, "archs": list(torch.archs)} if torch else None,
            "import_gate": self.import_gate, "model": self.model,
        }

    @property
    def flash_package(self) -> str | None:
        """The package that the attempt installs, None where the stack attempts nothing."""
        if self.flash_attn:
            return self.flash_attn.package
        return self.flash_source.package if self.flash_source else None

    @property
    def flash_check(self) -> str | None:
        """What proves it: a script of qwen_rig/host/, or `-m module`."""
        if self.flash_attn:
            return self.flash_attn.check
        return self.flash_source.check if self.flash_source else None

    @property
    def flash_source(self) -> Source | None:
        """What is built where no wheel will do; None where the stack has neither sources nor a torch to build for."""
        if self.flash_attn and self.flash_attn.build:
            return self.flash_attn.build
        return load()[0] if self.torch and not self.standin else None

    def flash_candidates(self, python: str, glibc: str | None, compute_capabilities: Sequence[Version | None],
                         source: str | None = None, unverified: bool = False) -> tuple[list[dict[str, Any]], list[str]]:
        """(wheels to attempt as {name, url, sha256, bytes}, best first; why the others are out): flash.candidates."""
        if self.flash_attn is None:
            return [], [self._no_flash()]
        return flash.candidates(self.flash_attn, self.torch, python, glibc, compute_capabilities, source, unverified)

    def _no_flash(self) -> str:
        """Why a stack has no flash-attn to attempt: none was released for its torch, or it just names none."""
        from qwen_rig.catalog.rules import load_rules

        wheels = load_rules().flash_torch()
        if self.torch and self.torch.release and ".".join(self.torch.release.split(".")[:2]) not in wheels:
            return (f"flash-attn's own wheels are for torch {wheels[0]} to {wheels[-1]}, and the stack has "
                    f"{self.torch.release}")
        return f"stack {self.name} has none"


def refusal(stack: Stack) -> RigError:
    """The one line that says why a refused stack can't be had: with the CUDA builds that its torch does have."""
    assert stack.refused is not None
    what = stack.refused.reason
    if stack.torch and stack.torch.release:
        what += torch_build.what_exists(stack.torch.release, stack.cuda_tag)
    return RigError(what, f"stack {stack.name}", f"take stack={stack.refused.nearest}")


def known_stacks() -> list[str]:
    """The names that come with the project."""
    return sorted(path.stem for path in (DATA / "stacks").glob("*.yml"))


def load_stack(name_or_path: str) -> Stack:
    """The stack of that name, or in that file (anything with a `/` or ending in .yml). Raises RigError, one line.

    A refused stack loads too (so that its reason can be shown); asking it for packages raises.
    """
    if "/" in name_or_path or name_or_path.endswith((".yml", ".yaml")):
        path = Path(name_or_path)
    else:
        path = DATA / "stacks" / f"{name_or_path}.yml"
        if not path.exists():
            raise RigError(f"there is no stack {name_or_path!r}", "stack", f"take one of {', '.join(known_stacks())}")
    table = schema.read(path)
    stack = _stack(table, path)
    table.done()
    if not stack.refused:
        torch_build.check(stack)
        _agree(stack)
    return stack


def _stack(table: Table, path: Path) -> Stack:
    refused = _refused(table)
    torch, own_index = _torch(table), _torch_index(table, path)
    rebuild = dict.fromkeys((*table.texts("rebuild"), *(own_index.packages if own_index else ())))
    pins: dict[str, Pin] = {}
    for name, row in table.named_tables("pins").items():
        pins[canonicalize_name(name)] = Pin(row.version("version"), row.take("source", str))
        row.done()
    python, pythons = table.take("python", str), table.texts("pythons")
    if python not in pythons:
        raise table.error(f"python {python} isn't among pythons {', '.join(pythons)}", "add it, or take one of these")
    lock: Path | None = None
    entries: tuple[Entry, ...] = ()
    env_mib = cache_mib = 0
    gate = ""
    if not refused:
        lock = _beside(path, table.take("lock", str))
        entries = read_lock(lock, read_sizes(_beside(path, table.take("sizes", str))))
        gate = table.take("import_gate", str)
        disk = table.table("disk")
        env_mib, cache_mib = disk.take("env_mib", int), disk.take("cache_mib", int)
        disk.done()
        table.take("exclude_newer", str)  # scripts/lock.py's business
    return Stack(
        name=table.take("name", str), path=path, summary=table.take("summary", str),
        standin=table.take("standin", bool), python=python, pythons=pythons,
        cuda=torch.cuda if torch else table.version("cuda"), torch=torch, pins=pins,
        unpinned=tuple(canonicalize_name(n) for n in table.texts("unpinned")), rebuild=tuple(rebuild),
        sdists=table.texts("sdists"), import_gate=gate, model=_model(table), env_mib=env_mib, cache_mib=cache_mib,
        deviations=tuple(_row(row, Deviation, "guide", "ours", "why") for row in table.tables("deviations")),
        advisories=tuple(_row(row, Advisory, "text", "source") for row in table.tables("advisories")),
        flash_attn=flash.read(table), torch_index=own_index, refused=refused, lock=lock,
        entries=entries)


def _torch(table: Table) -> Torch | None:
    if table.raw.get("torch", 0) is None:
        table.raw.pop("torch")
        return None
    row = table.table("torch")
    torch = Torch(row.maybe_version("release"), row.version("cuda"), row.texts("archs"), row.take("cxx11abi", bool),
                  row.take("source", str), row.maybe_version("glibc"))
    row.done()
    return torch


def _model(table: Table) -> str:
    """The family that the verification trains a tiny random model of."""
    name = table.maybe("model", str) or MODELS[0]
    if name not in MODELS:
        raise table.error(f"model can't be {name!r}", f"it takes {', '.join(MODELS)}")
    return name


def _torch_index(table: Table, path: Path) -> TorchIndex | None:
    """The torch_index block, with the hash lines of that index where there are some."""
    found = torch_index.read(table)
    if found is None or found.lock is None:
        return found
    return replace(found, entries=read_lock(_beside(path, found.lock), {}))


def _refused(table: Table) -> Refused | None:
    if table.raw.get("refused") is None:
        table.raw.pop("refused", None)
        return None
    row = table.table("refused")
    refused = Refused(row.take("reason", str), row.take("nearest", str))
    row.done()
    return refused


def _row(row: Table, kind: Any, *names: str) -> Any:
    made = kind(*(row.take(name, str) for name in names))
    row.done()
    return made


def _beside(path: Path, name: str) -> Path:
    """A lock or sizes file: beside one's own stack file, else among the project's."""
    own = path.parent / name
    return own if own.exists() else DATA / "locks" / name


def _agree(stack: Stack) -> None:
    """The lock holds every pin in its very version on every Python, and every other wanted package; else RigError."""
    remedy = f"make lock STACK={stack.name if stack.path.parent == DATA / 'stacks' else stack.path}"
    for python in stack.pythons:
        locked = stack.requirements(python)
        for name, pin in stack.pins.items():
            have = locked.get(name)
            if have is None or Version(have.version) != Version(pin.version):
                found = f"has {have.version}" if have else "doesn't hold it"
                raise RigError(f"pins.{name} wants {pin.version}, but the lock {found} for Python {python}",
                               f"{stack.path}, {stack.lock}", remedy)
        absent = [name for name in (*stack.unpinned, *stack.sdists) if name not in locked]
        if absent:
            raise RigError(f"unpinned or sdists name {absent[0]}, which the lock lacks for Python {python}",
                           f"{stack.path}, {stack.lock}", remedy)
