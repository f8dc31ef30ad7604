"""What a host shall run: a stack's pins, lock, torch build, flash-attn wheels and what must be said of it.

Data in qwen_rig/data/stacks/NAME.yml, checked here. The lock and the stack file agree, or loading fails.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from packaging.utils import canonicalize_name
from packaging.version import Version

from qwen_rig.catalog import advisories, flash_wheels, torch_build, torch_index
from qwen_rig.catalog.advisories import Advisory
from qwen_rig.catalog.datafile import DATA
from qwen_rig.catalog.flash_build import Source, load
from qwen_rig.catalog.flash_wheels import FlashAttn
from qwen_rig.catalog.kept import kept
from qwen_rig.catalog.lock import Entry, Requirement, lines_of, read_lock, read_sizes, select
from qwen_rig.catalog.models import Model, head_dims, linear_layers
from qwen_rig.catalog.rules import load_rules
from qwen_rig.catalog.stack_types import Deviation, Pin, Refused, Torch, cuda_tag
from qwen_rig.catalog.torch_index import TorchIndex, TorchSource
from qwen_rig.catalog.yamlfile import YamlFile
from qwen_rig.errors import RigError
from qwen_rig.frozen import frozen

if TYPE_CHECKING:
    from qwen_rig.catalog.stack_file import IndexRow, RefusedFile, WholeFile

__all__ = ["DATA", "Deviation", "Pin", "Refused", "Stack", "Torch", "known_stacks", "load_stack", "refusal"]

COMMON_BUILD_LOCK = "build.lock.txt"  # of qwen_rig/data/build.yml


@frozen
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
    trains: tuple[str, ...]
    env_mib: int
    cache_mib: int
    deviations: tuple[Deviation, ...]
    advisories: tuple[Advisory, ...]
    flash_attn: FlashAttn | None
    torch_index: TorchIndex | None
    refused: Refused | None
    lock: Path | None
    entries: tuple[Entry, ...]
    build_lock: Path

    @property
    def cuda_tag(self) -> str:
        """`cu128`: the CUDA release as wheels and indexes spell it."""
        return cuda_tag(self.cuda)

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
        """Raises RigError where the stack as such, or on that Python, can't be installed."""
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
        return "".join(f"{line}\n" for line in lines_of(self.requirements(python), names))

    def built(self, names: Iterable[str], python: str) -> list[str]:
        """Those of these packages that are published as source only, and so are built on the host."""
        wanted = self.requirements(python)
        return sorted(name for name in names if name in self.sdists and name in wanted)

    @cached_property
    def build_lock_text(self) -> str:
        """The lock of all that runs in such a build."""
        return self.build_lock.read_text(encoding="utf-8")

    def build_lines(self, names: Iterable[str], python: str) -> list[str]:
        """These tools as that lock has them, a line each; one that it lacks by name alone, which no host installs."""
        held = self.build_requirements(python)
        return [(lines_of(held, [name]) or [name])[0] for name in map(canonicalize_name, names)]

    def build_requirements(self, python: str) -> dict[str, Requirement]:
        """What that lock holds for a Python. Raises RigError."""
        return select(read_lock(self.build_lock, {}), python)

    def advised(self, python: str, cards: Sequence[Version | None] = (None,),
                family: str | None = None) -> tuple[Advisory, ...]:
        """What is known of the stack, and of the versions in its lock on these cards, for a model of that family."""
        versions = {name: r.version for name, r in self.requirements(python).items()}
        return (*self.advisories, *advisories.about(versions, cards, family))

    def torch_source(self, source: str | None, python: str) -> TorchSource | None:
        """What comes from an index of torch's own (`source`: the knob source_torch_index), None where nothing does."""
        index = torch_index.index_url(self.torch_index, self.cuda_tag, source)
        if index is None or self.torch_index is None:
            return None
        return torch_index.torch_source(self.torch_index, index, python, lambda name: self._local(name, python))

    def _local(self, name: str, python: str) -> str:
        """A locked version as an index of torch's own calls it: `2.8.0+cu128`; without torch there are no such
        builds."""
        version = self.requirements(python)[name].version
        return f"{version}+{self.cuda_tag}" if self.torch else version

    def check_index(self, source: str | None, accepted: bool, where: str) -> None:
        """Raises RigError where torch would come from an index for whose bytes nobody vouches, without consent.
        `source`: the knob source_torch_index; `accepted`: accept_unlocked_torch."""
        wanted = self.torch_index
        if source is not None and wanted is None and self.torch is not None:
            raise RigError(f"stack {self.name} takes no torch from an index of its own", where,
                           "leave source_torch_index out, or give the stack file a torch_index")
        url = torch_index.index_url(wanted, self.cuda_tag, source)
        if url is None or accepted or wanted is None or wanted.entries:
            return
        raise RigError(f"stack {self.name} would take {', '.join(wanted.packages)} unchecked: {wanted.why}", where,
                       "set accept_unlocked_torch=true to take them so"
                       + ("" if wanted.only else ", or leave source_torch_index out"))

    def lock_beside(self, torch: TorchSource | None, python: str) -> str:
        """The lock without the packages that have an index of their own. The whole lock where nothing
        does."""
        if torch is None:
            return self.lock_text
        return self.lock_for((name for name in self.requirements(python) if name not in torch.names), python)

    def expect(self, python: str, gpu: bool = True, model: Model | None = None) -> dict[str, Any]:
        """What qwen_rig/host/verify.py is told to look for (its --expect). `gpu` False: none is expected to answer;
        `model`: the one that is wanted, None where all that the stack trains are."""
        torch = self.torch
        return {
            "stack": self.name, "standin": self.standin, "python": python, "gpu": gpu,
            "packages": {name: r.version for name, r in sorted(self.requirements(python).items())},
            "torch": {"release": torch.release, "cuda": torch.cuda, "archs": list(torch.archs)} if torch else None,
            "import_gate": self.import_gate, "model": self.model,
            "head_dims": [model.head_dim] if model else list(head_dims(self.trains)),
            "gated_delta": linear_layers(self.model),
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
                         source: str | None = None, unverified: bool = False,
                         ) -> tuple[list[flash_wheels.Candidate], list[str]]:
        """(wheels to attempt, best first; why the others are out): flash_wheels.candidates."""
        if self.flash_attn is None:
            return [], [self._no_flash()]
        return flash_wheels.candidates(self.flash_attn, self.torch, python, glibc, compute_capabilities, source,
                                       unverified)

    def _no_flash(self) -> str:
        """Why a stack has no flash-attn to attempt: none was released for its torch, or it just names none."""
        wheels = load_rules().flash_torch()
        if self.torch and self.torch.release and ".".join(self.torch.release.split(".")[:2]) not in wheels:
            return (f"flash-attn's own wheels are for torch {wheels[0]} to {wheels[-1]}, and the stack has "
                    f"{self.torch.release}")
        return f"stack {self.name} has none"


def refusal(stack: Stack) -> RigError:
    """The one line that says why a refused stack can't be installed: with the CUDA builds that its torch does have."""
    assert stack.refused is not None
    what = stack.refused.reason
    if stack.torch and stack.torch.release:
        what += load_rules().what_exists(stack.torch.release, stack.cuda_tag)
    return RigError(what, f"stack {stack.name}", f"take stack={stack.refused.nearest}")


def known_stacks() -> list[str]:
    """The names that come with the project."""
    return sorted(path.stem for path in (DATA / "stacks").glob("*.yml"))


def load_stack(name_or_path: str) -> Stack:
    """The stack of that name, or in that file (anything with a `/` or ending in .yml). Raises RigError, one line.

    A refused stack loads too (so that its reason can be shown); asking it for packages raises.
    """
    if "/" in name_or_path or name_or_path.endswith((".yml", ".yaml")):
        return _read(Path(name_or_path))
    path = DATA / "stacks" / f"{name_or_path}.yml"
    if not path.exists():
        raise RigError(f"there is no stack {name_or_path!r}", "stack", f"take one of {', '.join(known_stacks())}")
    return kept(path, f"stack-{name_or_path}", lambda: _read(path))


def _read(path: Path) -> Stack:
    from qwen_rig.catalog.stack_file import WholeFile, read_stack  # loaded only where this stack isn't kept
    file, said = read_stack(path)
    stack = _stack(said, said if isinstance(said, WholeFile) else None, path)
    if stack.build_lock.name != COMMON_BUILD_LOCK:
        read_lock(stack.build_lock, {})  # the project's own is known to be right
    if not stack.refused:
        torch_build.check(file, stack.cuda, stack.torch, _installed(stack))
        _agree(stack, file)
    return stack


def _stack(said: RefusedFile | WholeFile, whole: WholeFile | None, path: Path) -> Stack:
    index = _torch_index(said.torch_index, path)
    lock = _beside(path, whole.lock) if whole else None
    return Stack(
        name=said.name, path=path, summary=said.summary, standin=said.standin, python=said.python,
        pythons=said.pythons, cuda=said.torch.cuda if said.torch else said.cuda or "", torch=said.torch,
        pins={canonicalize_name(name): pin for name, pin in said.pins.items()},
        unpinned=tuple(canonicalize_name(name) for name in said.unpinned),
        rebuild=tuple(dict.fromkeys((*said.rebuild, *(index.packages if index else ())))),
        sdists=said.sdists, import_gate=whole.import_gate if whole else "", model=said.model, trains=said.trains,
        env_mib=whole.disk.env_mib if whole else 0, cache_mib=whole.disk.cache_mib if whole else 0,
        deviations=said.deviations, advisories=tuple(Advisory(row.text, row.source) for row in said.advisories),
        flash_attn=said.flash_attn, torch_index=index, refused=said.refused, lock=lock,
        build_lock=_beside(path, whole.build_lock if whole and whole.build_lock else COMMON_BUILD_LOCK),
        entries=read_lock(lock, read_sizes(_beside(path, whole.sizes))) if lock and whole else ())


def _torch_index(row: IndexRow | None, path: Path) -> TorchIndex | None:
    """The torch_index block, with the hash lines of that index where there are some."""
    if row is None:
        return None
    return TorchIndex(row.packages, row.only, row.pre, row.lock, row.why,
                      read_lock(_beside(path, row.lock), {}) if row.lock else ())


def _installed(stack: Stack) -> list[tuple[str, str]]:
    """(where it stands, version) of each torch that the stack would install, as far as it says."""
    if pin := stack.pins.get("torch"):
        return [("pins.torch", pin.version)]
    entries = (*stack.entries, *(stack.torch_index.entries if stack.torch_index else ()))
    return [("the lock's torch", entry.requirement.version) for entry in entries if entry.name == "torch"]


def _beside(path: Path, name: str) -> Path:
    """A lock or sizes file: beside one's own stack file, else among the project's."""
    own = path.parent / name
    return own if own.exists() else DATA / "locks" / name


def _agree(stack: Stack, file: YamlFile) -> None:
    """The lock holds every pin in its very version on every Python, and every other wanted package; else RigError."""
    remedy = f"make lock STACK={stack.name if stack.path.parent == DATA / 'stacks' else stack.path}"
    for python in stack.pythons:
        locked = stack.requirements(python)
        for name, pin in stack.pins.items():
            have = locked.get(name)
            if have is None or Version(have.version) != Version(pin.version):
                found = f"has {have.version}" if have else "doesn't hold it"
                raise RigError(f"pins.{name} wants {pin.version}, but the lock {found} for Python {python}",
                               f"{file.where(('pins', name))}, {stack.lock}", remedy)
        absent = [name for name in (*stack.unpinned, *stack.sdists) if name not in locked]
        if absent:
            raise RigError(f"unpinned or sdists name {absent[0]}, which the lock lacks for Python {python}",
                           f"{file.where()}, {stack.lock}", remedy)
