"""Packages that apt installs for a step: one program for all such steps."""

from __future__ import annotations

from collections.abc import Iterator

from qwen_rig.plan import Context, Step
from qwen_rig.plan.apt import Packages
from qwen_rig.program import load
from qwen_rig.run.job import JobCommand, job
from qwen_rig.run.run import Run

INSTALL = load("shell/network.sh", "shell/apt.sh", "shell/install.sh")


def install(run: Run, ctx: Context, step: Step) -> Iterator[JobCommand]:
    """The step's packages."""
    yield job(step, INSTALL(**run.network.apt(ctx), groups=" ".join(step.need(Packages).names)), ctx.knobs.timeout_apt)
