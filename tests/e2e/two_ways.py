"""A deploy of one operation for the test that runs it: a big file brought from the host, and sent back to it.

COPY_FILE and COPY_SHA256: the file there; COPY_FOLDER: where it is sent.
"""

import os
from collections.abc import Iterator

from pyinfra.api import FunctionCommand, operation
from pyinfra.context import host

from qwen_rig.domain import Domain
from qwen_rig.errors import RigError
from qwen_rig.run import transfer
from qwen_rig.run.run import Run


def both_ways() -> None:
    """A failure is told, and is no failed operation: nor is it one of the attempt at flash-attn."""
    try:
        path = transfer.bring(host, Domain("copies"), os.environ["COPY_FILE"], os.environ["COPY_SHA256"])
        sent = transfer.send(host, path, "/root", os.environ["COPY_FOLDER"])
        transfer.drop(path)
    except RigError as error:
        Run.of(host).report.progress(host.name, str(error))
    else:
        Run.of(host).report.progress(host.name, f"sent to {sent}")


@operation()
def two_ways() -> Iterator[FunctionCommand]:
    """There and back."""
    yield FunctionCommand(both_ways, (), {})


two_ways(name="Two ways")
