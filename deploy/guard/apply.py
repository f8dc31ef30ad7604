"""The driver's guard: nouveau kept out, NVIDIA's packages kept from unattended upgrades."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

from qwen_rig.deploy.guard.plan import may_have_nova
from qwen_rig.managed import guard
from qwen_rig.plan import Context, Step
from qwen_rig.program import load
from qwen_rig.run.converge import Applier
from qwen_rig.run.job import JobCommand, job
from qwen_rig.run.run import Run

GUARDS = load("shell/files.sh", "deploy/guard/guard.sh")


def commands(run: Run, ctx: Context, step: Step) -> Iterator[JobCommand]:
    """The last file is the sign that all is done."""
    *first, (sign, text) = guard(may_have_nova(ctx)).items()
    yield job(step, GUARDS(*chain.from_iterable(first), sign=sign, sign_text=text), ctx.knobs.timeout_apt)


APPLIER = Applier("Driver guard | Keep nouveau out and upgrades deliberate", commands, root=True)
