"""Where things lie: a cache that outlives the hosts, and one folder per testbed that doesn't."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def cache() -> Path:
    """$QWEN_RIG_CACHE/testbed, or ~/.cache/qwen-rig/testbed."""
    root = Path(os.environ.get("QWEN_RIG_CACHE") or Path.home() / ".cache" / "qwen-rig") / "testbed"
    root.mkdir(parents=True, exist_ok=True)
    return root.resolve()


def run_folder(instance: str) -> Path:
    """Everything of one running testbed: state, disks, logs. Its path is also how leftovers are found."""
    return cache() / "run" / instance


@contextmanager
def locked(name: str) -> Iterator[None]:
    """Hold one of the cache's locks: two processes never build, start or stop the same thing."""
    with open(cache() / f"{name}.lock", "w", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
