"""Testbed hosts for the testbed's own tests, brought up once."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pytest

from testbed import HostSpec, Testbed
from tests import instance

SPECS = [
    HostSpec("bare"),
    HostSpec("old", driver="550.90.07:proprietary", toolkit="12.4"),
    HostSpec("box", kind="container", driver="580.95.05:open", user="dev"),
    HostSpec("small", nouveau=True, gpus=2, root_mib=2048, user="pw"),
]


@pytest.fixture(scope="session")
def root() -> None:
    """Skip, with the reason, where hosts can't be."""
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        pytest.skip("real SSH hosts on this machine take root on Linux")


@pytest.fixture(scope="module")
def bed(root: None) -> Iterator[Testbed]:
    with Testbed(instance("selftest")) as made:
        made.up(SPECS)
        yield made
