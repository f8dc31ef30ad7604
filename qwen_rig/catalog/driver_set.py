"""The driver packages of one distribution: from NVIDIA's repository, or from the distribution's own archive."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from qwen_rig.catalog.sources import AptKey
from qwen_rig.frozen import frozen

BRANCH = "{branch}"  # stands for the branch in a template


@frozen
class DriverSet:
    """The driver packages of one distribution. `bytes` None: not known; `own`: the branches of which the distribution
    has signed modules in its own archive; `branches`: those that NVIDIA's repository has there, where it lacks some;
    `key`: the key that signs that repository (None: not known)."""

    folder: str
    tested: bool
    key: AptKey | None
    bytes: int | None
    pinning_from: int
    pinning: str
    pinned: Mapping[str, str]
    versioned: Mapping[str, str]
    own: tuple[int, ...] = ()
    branches: tuple[int, ...] = ()
    own_names: Mapping[str, Sequence[str]] | None = None

    def packages(self, flavour: str, branch: int) -> list[list[str]]:
        """Groups to install in turn (a pinning package before what it pins); flavour is open or proprietary."""
        return [[name.replace(BRANCH, str(branch)) for name in group] for group in self.templates(flavour, branch)]

    def templates(self, flavour: str, branch: int) -> list[list[str]]:
        """The same, of NVIDIA's repository, with {branch} for the branch: which ones there are, the host knows best."""
        if branch >= self.pinning_from:
            return [[self.pinning], [self.pinned[flavour]]]
        return [[self.versioned[flavour]]]

    def own_templates(self, flavour: str, kernel: str) -> list[list[str]]:
        """The same of the distribution's own archive, with modules that are signed for that kernel."""
        names = (self.own_names or {}).get(flavour, ())
        return [[name.replace("{kernel}", kernel) for name in names]]
