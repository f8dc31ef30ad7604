"""Miniforge, where no sound conda is there to adopt. As the SSH user, never root's business."""

from __future__ import annotations

from collections.abc import Iterator

from qwen_rig.catalog.rules import load_rules
from qwen_rig.deploy.conda.plan import CondaPayload
from qwen_rig.facts._conda import OURS, UNFINISHED
from qwen_rig.plan import Context, Step
from qwen_rig.program import lines, load
from qwen_rig.run import network
from qwen_rig.run.converge import Applier
from qwen_rig.run.job import JobCommand, job
from qwen_rig.run.place import place
from qwen_rig.run.run import Run

INSTALL = load("shell/place.sh", "shell/network.sh", "deploy/conda/install.sh")


def commands(run: Run, ctx: Context, step: Step) -> Iterator[JobCommand]:
    """Miniforge from the first source that serves the file of our hash."""
    name = network.miniforge_file(ctx)
    sources = run.network.route(ctx, ["miniforge"]).of("miniforge")
    digest = ctx.knobs.source_miniforge_sha256 or load_rules().miniforge.sha256
    rows = [f"{url} {network.turbo(ctx, url) or '-'}" for source in sources if (url := source.url or "")]
    call = INSTALL(place=place(ctx), **run.network.way_out(ctx), prefix=step.need(CondaPayload).prefix,
                   unfinished=UNFINISHED, marker=OURS, file=name, digest=digest, sources=lines(rows))
    yield job(step, call, ctx.knobs.timeout_env)


APPLIER = Applier("Conda | Install Miniforge", commands)
