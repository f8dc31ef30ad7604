"""The driver of the wanted branch and flavour, with the kernel's headers, by apt."""

from __future__ import annotations

from collections.abc import Iterator

from qwen_rig.deploy.driver.plan import DriverPayload
from qwen_rig.managed import PREFERENCES, preferences_text
from qwen_rig.plan import Context, Step
from qwen_rig.plan.place import repository_at
from qwen_rig.program import lines, load
from qwen_rig.run.converge import Applier
from qwen_rig.run.job import JobCommand, job
from qwen_rig.run.run import Run

INSTALL = load("shell/files.sh", "shell/network.sh", "shell/apt.sh", "deploy/driver/install.sh")


def commands(run: Run, ctx: Context, step: Step) -> Iterator[JobCommand]:
    """The pins too: the repository may have come for the toolkit alone, when another driver was right."""
    wanted = step.need(DriverPayload)
    groups = lines(" ".join(group) for group in wanted.templates)
    pins = preferences_text(repository_at(ctx), driver=not wanted.own)
    branches = dict(zip(("branch", "least", "last"), map(str, wanted.branches), strict=True))
    yield job(step, INSTALL(**run.network.apt(ctx), preferences=PREFERENCES, pins=pins, groups=groups, **branches,
                            headers="yes" if wanted.headers else ""), ctx.knobs.timeout_apt)


APPLIER = Applier("NVIDIA driver | Install the driver", commands, root=True)
