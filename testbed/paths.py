"""Where things lie: a cache that outlives the hosts, and one folder per testbed that doesn't."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ._shell import telling

DAY = 86400


def cache() -> Path:
    """$QWEN_RIG_CACHE/testbed, or ~/.cache/qwen-rig/testbed."""
    root = Path(os.environ.get("QWEN_RIG_CACHE") or Path.home() / ".cache" / "qwen-rig") / "testbed"
    root.mkdir(parents=True, exist_ok=True)
    return root.resolve()


def run_folder(instance: str) -> Path:
    """Everything of one running testbed: state, disks, logs. Its path is also how leftovers are found."""
    return cache() / "run" / instance


def instance(name: str) -> str:
    """That name, told apart by this checkout: two clones' tests on one machine don't take each other's hosts down."""
    return f"{name}-{_checkout()}"


def instances() -> list[str]:
    """The instances of this checkout that have a folder: `main`, and those that `instance` has named."""
    names = sorted(path.name for path in (cache() / "run").glob("*") if path.is_dir())
    return [name for name in names if name == "main" or name.endswith(f"-{_checkout()}")]


def _checkout() -> str:
    return hashlib.sha256(str(Path(__file__).resolve().parent).encode()).hexdigest()[:6]


def settle(folder: Path) -> None:
    """Mark a built folder as wanted now, and delete those of its kind that nobody wanted in a day.

    Its kind: what shares its name up to the last dash. A mounted one is still in use, by hosts that are up.
    """
    os.utime(folder)
    for old in folder.parent.glob(f"{folder.name.rpartition('-')[0]}-*"):
        if old != folder and old.is_dir() and time.time() - old.stat().st_mtime > DAY and not _mounted(old):
            shutil.rmtree(old, ignore_errors=True)


def _mounted(folder: Path) -> bool:
    for info in Path("/proc").glob("[0-9]*/mountinfo"):
        try:
            if str(folder) in info.read_text(encoding="utf-8"):
                return True
        except OSError:  # the process has ended
            continue
    return False


@contextmanager
def locked(name: str) -> Iterator[None]:
    """Hold one of the cache's locks: two processes never build, start or stop the same thing."""
    with open(cache() / f"{name}.lock", "w", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            what = f"waits for another process, which holds {file.name}"
            print(f"testbed: {what}", file=sys.stderr, flush=True)
            with telling(what):
                fcntl.flock(file, fcntl.LOCK_EX)
        yield
