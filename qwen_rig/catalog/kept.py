"""What the project's own data came to, kept for the next run: read and checked once, not in every run.

Kept under the state of all data files and of the code that reads them, so that nothing kept outlives an edit. A file
that isn't this user's own alone is left aside: what is unpickled runs.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import shutil
import stat
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TypeVar, cast

from qwen_rig import atomic, homes
from qwen_rig.errors import RigError

T = TypeVar("T")
PACKAGE = Path(__file__).parents[1]
STATES = 8  # that are kept: several checkouts and versions of this project may be at work in turn


def kept(source: Path, name: str, make: Callable[[], T]) -> T:
    """What `make` made of a file of the project's data in an earlier run, or makes now and keeps; of another file it is
    made anew. Raises what `make` does."""
    return found_again(name, make) if source.is_relative_to(PACKAGE / "data") else make()


def found_again(name: str, make: Callable[[], T]) -> T:
    """What `make` made of the project's data and code in an earlier run, or makes now and keeps."""
    try:
        path = homes.cache() / "catalog" / _state() / f"{name}.pickle"
    except (RigError, OSError):
        return make()
    with suppress(Exception):  # not there, torn, another's: made again
        return cast(T, pickle.loads(_own(path)))
    made = make()
    with suppress(OSError):
        _forget_others(path.parent)
        path.unlink(missing_ok=True)  # a link, too
        atomic.write(path, pickle.dumps(made), 0o600, 0o700)
    return made


@cache
def _state() -> str:
    """A name for the data and the code as they are now: by the size and the time of change of every file."""
    seen = [sys.version]
    for top in ("data", "catalog", "facts"):
        for folder, _, names in os.walk(PACKAGE / top):
            if not folder.endswith("__pycache__"):
                for path in (os.path.join(folder, name) for name in sorted(names)):
                    now = os.stat(path)
                    seen.append(f"{path} {now.st_size} {now.st_mtime_ns}")
    return hashlib.sha256("\n".join(seen).encode()).hexdigest()[:16]


def _own(path: Path) -> bytes:
    """The bytes of a file that is this user's and that nobody else can write. Raises OSError."""
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
        now = os.fstat(file.fileno())
        if now.st_uid != os.geteuid() or now.st_mode & 0o022 or not stat.S_ISREG(now.st_mode):
            raise PermissionError(f"{path} is not this user's alone")
        return file.read()


def _forget_others(folder: Path) -> None:
    """Remove what was kept longest ago, beyond STATES; once, when the first is kept of this state."""
    if not folder.exists() and folder.parent.is_dir():
        others = sorted(folder.parent.iterdir(), key=lambda other: other.lstat().st_mtime, reverse=True)
        for other in others[STATES - 1:]:
            shutil.rmtree(other, ignore_errors=True)
