"""What compiles: gcc and g++ for Triton, NVIDIA's toolkit where a source build needs it. No driver comes in tow."""

from __future__ import annotations

from collections.abc import Iterator

from qwen_rig.deploy.toolkit.plan import Packages
from qwen_rig.plan import Context, Step
from qwen_rig.program import load
from qwen_rig.run.adapter import deploy
from qwen_rig.run.converge import converge
from qwen_rig.run.job import JobCommand, job
from qwen_rig.run.run import Run

INSTALL = load("shell/network.sh", "shell/apt.sh", "deploy/toolkit/install.sh")


@deploy("Compilers")
def compilers() -> None:
    """gcc and g++ from the distribution."""
    converge("compilers", "Install gcc and g++", _packages, root=True)


@deploy("CUDA toolkit")
def cuda_toolkit() -> None:
    """nvcc of the wanted release, beside what is there."""
    converge("toolkit", "Install the CUDA toolkit", _packages, root=True)


def _packages(run: Run, ctx: Context, step: Step) -> Iterator[JobCommand]:
    yield job(step, INSTALL(**run.network.apt(ctx), groups=" ".join(step.need(Packages).names)), ctx.knobs.timeout_apt)
