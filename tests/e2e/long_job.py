"""A deploy of one operation that is one job, given by the test that runs it: JOB_SCRIPT, JOB_SECONDS, and in JOB_SUDO
the names of the hosts on which it is root's by sudo."""

import os
from collections.abc import Iterator

from pyinfra.api import operation
from pyinfra.context import host

from qwen_rig.run.job import JobCommand
from qwen_rig.run.job_protocol import Job


@operation()
def long_job() -> Iterator[JobCommand]:
    """The job."""
    yield JobCommand(Job("long", "Long job", os.environ["JOB_SCRIPT"], int(os.environ.get("JOB_SECONDS", "60")),
                         stdin=os.environ.get("JOB_STDIN", "")))


long_job(name="Long job", _sudo=host.name in os.environ.get("JOB_SUDO", "").split(","))
