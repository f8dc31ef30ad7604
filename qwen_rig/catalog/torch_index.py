"""torch from an index of its own (PyTorch's, or a mirror of it): what comes from there, and who vouches for its bytes.

PyTorch's index serves other bytes of a release than the package index does, under a version with a local part
(`2.8.0+cu128`), so the lock's hashes don't hold for them. They need hash lines of their own (`make lock STACK=… \
TORCH_INDEX=…`, where that index is reached); without those, that source asks for consent: accept_unlocked_torch.
Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from qwen_rig.catalog.lock import Entry, Requirement, select
from qwen_rig.catalog.sources import load_sources
from qwen_rig.frozen import frozen

PYTORCH = "pytorch"  # what source_torch_index says for PyTorch's own index, as sources.yml has it


@frozen
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


@frozen
class TorchSource:
    """torch's packages (with hashes or not) and the index that they are fetched from, beside the lock and its index.

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


def index_url(wanted: TorchIndex | None, cuda_tag: str, source: str | None) -> str | None:
    """The index that a stack's torch packages come from; None where it's the package index, like the rest."""
    if wanted is None or (source is None and not wanted.only):
        return None
    if source not in (None, PYTORCH):
        return source
    known = load_sources().torch_index
    return f"{known.nightly if wanted.pre else known.pytorch}/{cuda_tag}"


def torch_source(wanted: TorchIndex, index: str, python: str, local: Callable[[str], str]) -> TorchSource:
    """What an env of a stack fetches beside its lock. `local`: a package's version as that index calls it."""
    if wanted.entries:
        packages = dict(sorted(select(wanted.entries, python).items()))
    elif wanted.only:
        packages = {name: Requirement("", (), None) for name in wanted.packages}
    else:
        packages = {name: Requirement(local(name), (), None) for name in wanted.packages}
    return TorchSource(index, wanted.packages, packages, bool(wanted.entries), wanted.pre,
                 wanted.only and not wanted.entries)
