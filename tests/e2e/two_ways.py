"""A deploy of one operation for the test that runs it: a big file brought from the host, and sent back to it.

COPY_FILE and COPY_SHA256: the file there; COPY_FOLDER: where it is sent.
"""

import os
from collections.abc import Iterator

from pyinfra.api import FunctionCommand, operation
from pyinfra.context import host

from qwen_rig.errors import RigError
from qwen_rig.run import report as _report
from qwen_rig.run import transfer as _copies


def both_ways() -> None:
    """A failure is told, and is no failed operation: nor is it one of the attempt at flash-attn."""
    try:
        path = _copies.bring(host, os.environ["COPY_FILE"], os.environ["COPY_SHA256"])
        sent = _copies.send(host, path, "/root", os.environ["COPY_FOLDER"])
        _copies.drop(path)
    except RigError as error:
        _report.progress(host.name, str(error))
    else:
        _report.progress(host.name, f"sent to {sent}")


@operation()
def two_ways() -> Iterator[FunctionCommand]:
    """There and back."""
    yield FunctionCommand(both_ways, (), {})


two_ways(name="Two ways")
