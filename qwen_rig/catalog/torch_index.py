"""torch from an index of its own (PyTorch's, or a mirror of it): what comes from there, and who vouches for its bytes.

PyTorch's index serves other bytes of a release than the package index does, under a version with a local part
(`2.8.0+cu128`), so the lock's hashes don't hold for them. They need hash lines of their own (`make lock STACK=… \
TORCH_INDEX=…`, where that index is reached); without those, that source asks for consent: accept_unlocked_torch.
Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from qwen_rig.catalog.lock import Entry, Requirement, select
from qwen_rig.catalog.schema import Table
from qwen_rig.catalog.sources import load_sources
from qwen_rig.errors import RigError

if TYPE_CHECKING:
    from qwen_rig.catalog.stack import Stack

PYTORCH = "pytorch"  # what source_torch_index says for PyTorch's own index, as sources.yml has it


@dataclass(frozen=True)
class TorchIndex:
    """A stack's word on it. `only`: nothing else has these packages, and the stack's lock leaves them out; `pre`:
    they are pre-releases, without a version of their own. `why` says why there's no lock, `lock` may name one.
    """

    packages: tuple[str, ...]
    only: bool
    pre: bool
    lock: str | None
    why: str
    entries: tuple[Entry, ...] = ()


@dataclass(frozen=True)
class Apart:
    """What is fetched apart from the rest: packages (with hashes or not) from one index.

    `deps`: what they need and the lock hasn't comes from there too.
    """

    index: str
    names: tuple[str, ...]
    packages: Mapping[str, Requirement]
    hashed: bool
    pre: bool
    deps: bool

    @property
    def requirements(self) -> str:
        """The same as pip reads it."""
        return "".join(" ".join([f"{name}=={r.version}" if r.version else name, *(f"--hash={h}" for h in r.hashes)])
                       + "\n" for name, r in self.packages.items())


def read(stack: Table) -> TorchIndex | None:
    """The torch_index block of a stack file, None where it has none. Raises RigError."""
    if stack.raw.get("torch_index") is None:
        stack.raw.pop("torch_index", None)
        return None
    row = stack.table("torch_index")
    packages = row.texts("packages")
    if not packages:
        raise row.error(f"{row.key('packages')} is empty", "name torch and what must fit it")
    found = TorchIndex(packages, row.take("only", bool), row.take("pre", bool), row.maybe("lock", str),
                       row.take("why", str))
    row.done()
    return found


def index_url(stack: Stack, source: str | None) -> str | None:
    """The index that the torch packages come from; None where it's the package index, like the rest."""
    wanted = stack.torch_index
    if wanted is None or (source is None and not wanted.only):
        return None
    if source not in (None, PYTORCH):
        return source
    known = load_sources().torch_index
    return f"{known.nightly if wanted.pre else known.url}/{stack.cuda_tag}"


def apart(stack: Stack, source: str | None, python: str) -> Apart | None:
    """What an env of that stack fetches apart from its lock; None where the lock is all."""
    index, wanted = index_url(stack, source), stack.torch_index
    if index is None or wanted is None:
        return None
    if wanted.entries:
        packages = dict(sorted(select(wanted.entries, python).items()))
    elif wanted.only:
        packages = {name: Requirement("", (), None) for name in wanted.packages}
    else:
        locked = stack.requirements(python)
        packages = {name: Requirement(local(stack, locked[name].version), (), None) for name in wanted.packages}
    return Apart(index, wanted.packages, packages, bool(wanted.entries), wanted.pre,
                 wanted.only and not wanted.entries)


def local(stack: Stack, version: str) -> str:
    """A release as that index calls it: `2.8.0+cu128`; a stack without torch has no such builds."""
    return f"{version}+{stack.cuda_tag}" if stack.torch else version


def check(stack: Stack, source: str | None, accepted: bool, where: str) -> None:
    """Raises RigError where torch would come from an index for whose bytes nobody vouches, without consent."""
    wanted = stack.torch_index
    if source is not None and wanted is None and stack.torch is not None:
        raise RigError(f"stack {stack.name} takes no torch from an index of its own", where,
                       "leave source_torch_index out, or give the stack file a torch_index")
    if index_url(stack, source) is None or accepted or wanted is None or wanted.entries:
        return
    names = ", ".join(wanted.packages)
    raise RigError(f"stack {stack.name} would take {names} unchecked: {wanted.why}", where,
                   "set accept_unlocked_torch=true to take them so"
                   + ("" if wanted.only else ", or leave source_torch_index out"))
