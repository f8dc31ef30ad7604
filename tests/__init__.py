"""What tests of several folders share. No test's outcome depends on how fast the machine is: a test waits for what it
needs to see, paces what it disturbs by files, and bounds each wait by HANG_S."""

import os
import time
from collections.abc import Callable
from typing import TypeVar

from testbed import paths
from testbed._shell import HANG_S

Seen = TypeVar("Seen")
__all__ = ["HANG_S", "instance", "until"]


def instance(name: str) -> str:
    """A testbed's name: each of pytest-xdist's workers has hosts of its own, as each checkout has."""
    return paths.instance(f"{name}{os.environ.get('PYTEST_XDIST_WORKER', '')}")


def until(look: Callable[[], Seen], said: Callable[[], object] = lambda: "it never came") -> Seen:
    """What `look` gives once that is true; an AssertionError with what `said` gives after HANG_S."""
    end = time.monotonic() + HANG_S
    while not (seen := look()):
        assert time.monotonic() < end, said()
        time.sleep(0.02)
    return seen
