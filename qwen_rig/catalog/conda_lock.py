"""Python and pip of an env, with all that they need, as files of a conda channel and their sha256: locks/conda.yml."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import Annotated

from qwen_rig import homes
from qwen_rig.catalog.datafile import DATA, After, MaybeTexts, Row, Sha256, Text, Whole, load, wrong
from qwen_rig.catalog.yamlfile import shown
from qwen_rig.frozen import frozen

CONDA_LOCK = DATA / "locks" / "conda.yml"
PACKAGE = re.compile(r"(linux-64|noarch)/[A-Za-z0-9_][A-Za-z0-9_.+!-]*\.(conda|tar\.bz2|tar\.gz)")


def _path(text: str) -> str:
    if not PACKAGE.fullmatch(text):
        raise wrong(f"can't be {shown(text)}", "name a package below a channel: noarch/NAME-VERSION-BUILD.conda")
    return text


@frozen
class CondaFile(Row):
    """A package: its path below any channel that has it, and its bytes."""

    path: Annotated[Text, After(_path)]
    sha256: Sha256
    bytes: Whole


@dataclass(frozen=True, kw_only=True)
class CondaLock(Row):
    """The form of the file. Python ("3.10") → all files of its env before any package of a stack; `not_pinned`: the
    Pythons whose bytes nobody could fetch where it was written, for `make pins` to fill in."""

    channel: Text
    source: Text
    not_pinned: MaybeTexts = ()
    pythons: dict[Text, tuple[CondaFile, ...]]

    def files(self, python: str) -> tuple[CondaFile, ...]:
        """What is installed on that Python; nothing where it isn't pinned."""
        return self.pythons.get(python, ())


@cache
def load_conda_lock(path: str | None) -> CondaLock:
    """The lock in a file of the user's own, or (None) the project's. Raises RigError where the file is wrong."""
    return load(homes.expanded(path) if path else CONDA_LOCK, CondaLock)
