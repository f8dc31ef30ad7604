"""What tests of several folders share."""

import os

from testbed import paths


def instance(name: str) -> str:
    """A testbed's name: each of pytest-xdist's workers has hosts of its own, as each checkout has."""
    return paths.instance(f"{name}{os.environ.get('PYTEST_XDIST_WORKER', '')}")
