"""A deploy of one operation that is one job, given by the test that runs it: JOB_SCRIPT, JOB_SECONDS, and in JOB_SUDO
the names of the hosts on which it is root's by sudo. JOB_SHORT is HOST:SECONDS for the one host with another limit."""

import os
from collections.abc import Iterator

from pyinfra.api import operation
from pyinfra.context import host

from qwen_rig.program import Program
from qwen_rig.run.job import JobCommand
from qwen_rig.run.job_protocol import Job


@operation()
def long_job() -> Iterator[JobCommand]:
    """The job."""
    name, _, short = os.environ.get("JOB_SHORT", "").partition(":")
    seconds = int(short if name == host.name else os.environ["JOB_SECONDS"])
    yield JobCommand(Job("long", "Long job", Program(os.environ["JOB_SCRIPT"])(), seconds,
                         stdin=os.environ.get("JOB_STDIN", "")))


long_job(name="Long job", _sudo=host.name in os.environ.get("JOB_SUDO", "").split(","))
