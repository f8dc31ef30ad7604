"""Miniforge, where no sound conda is there to adopt. As the SSH user, never root's business."""

from __future__ import annotations

from collections.abc import Iterator

from qwen_rig.catalog.rules import load_rules
from qwen_rig.deploy.env.plan import CondaPayload
from qwen_rig.facts._conda import UNFINISHED
from qwen_rig.plan import Context, Step
from qwen_rig.program import lines, load
from qwen_rig.run import network
from qwen_rig.run.adapter import deploy
from qwen_rig.run.converge import converge
from qwen_rig.run.job import JobCommand, job
from qwen_rig.run.place import place
from qwen_rig.run.run import Run

INSTALL = load("shell/place.sh", "shell/network.sh", "deploy/conda/install.sh")


@deploy("Conda")
def conda() -> None:
    """A conda to make the env with."""
    converge("conda", "Install Miniforge", _miniforge)


def _miniforge(run: Run, ctx: Context, step: Step) -> Iterator[JobCommand]:
    name = network.miniforge_file(ctx)
    sources = run.network.route(ctx, ["miniforge"]).of("miniforge")
    digest = ctx.knobs.source_miniforge_sha256 or load_rules().miniforge.sha256
    rows = [f"{url} {network.turbo(ctx, url) or '-'}" for source in sources if (url := source.url or "")]
    call = INSTALL(place=place(ctx), proxy=network.proxy(ctx), prefix=step.need(CondaPayload).prefix,
                   unfinished=UNFINISHED, file=name, digest=digest, sources=lines(rows))
    yield job(step, call, ctx.knobs.timeout_env)
