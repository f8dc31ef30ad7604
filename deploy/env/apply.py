"""The env and its packages, from a lock with hashes: built beside, proved, then the link is flipped."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from qwen_rig.catalog.sources import load_sources
from qwen_rig.deploy.env import installers as _packages
from qwen_rig.deploy.env.plan import Build, Mend
from qwen_rig.network.route import DEFAULT
from qwen_rig.plan import Context, Step
from qwen_rig.plan.env import env_record, envs_dir, known_as, prefix
from qwen_rig.plan.python import address, conda_files
from qwen_rig.program import lines, load
from qwen_rig.run.adapter import FunctionCommand, Host, State
from qwen_rig.run.converge import Applier
from qwen_rig.run.job import JobCommand, job
from qwen_rig.run.memory import ProbeFailed
from qwen_rig.run.run import Run
from qwen_rig.run.writer import claim


def commands(run: Run, ctx: Context, step: Step) -> Iterator[FunctionCommand]:
    """The env built beside, or mended in place."""
    if isinstance(step.payload, Mend):
        yield _mend(run, ctx, step, step.payload)
    else:
        yield _build(run, ctx, step, step.need(Build))
        if len(run.network.route(ctx, ["pip_index"]).of("pip_index")) > 1:
            yield FunctionCommand(_tell, (), {})


def _tell(state: State, host: Host) -> bool:
    """Say which sources didn't serve the lock, as the env's record has it."""
    Run.of(host).memory.forget(host)
    with suppress(ProbeFailed):  # the next step says so
        _say_refused(host)
    return True


def _say_refused(host: Host) -> None:
    run = Run.of(host)
    for refused in env_record(run.memory.context(host)).refused.split(";"):
        if refused:
            label, _, why = refused.partition(":")
            run.report.caveats[host.name].append(f"packages: source {label} refused ({why}), the next one used")


LIBRARY = (*_packages.LIBRARY, "deploy/env/lock.sh")
BUILD = load(*LIBRARY, "deploy/env/python.sh", "deploy/env/aside.sh", "deploy/env/settle.sh",
             "deploy/env/build.sh")
MEND = load(*LIBRARY, "deploy/env/mend.sh")


def _build(run: Run, ctx: Context, step: Step, wanted: Build) -> JobCommand:
    """Create the env in its own generation, fill it, prove the import, write its record, flip the link."""
    knobs, stack = ctx.knobs, ctx.stack
    root, name, generation = envs_dir(ctx), knobs.env_name, wanted.generation
    route = run.network.route(ctx, ["conda_channel", "huggingface"])
    channels = [source.url or load_sources().conda_channel for source in route.of("conda_channel")]
    torch = stack.torch_source(knobs.source_torch_index, knobs.python)
    made = _made(ctx)
    if (endpoint := route.of("huggingface")[0]).label != DEFAULT:
        made["hf_endpoint"] = endpoint.url or ""
    call = BUILD(
        **_packages.installers(run, ctx, stack.requirements(knobs.python)), **_packages.torch_install(ctx, torch),
        root=root, name=name, generation=generation, known_as=known_as(ctx), conda=f"{prefix(ctx)}/bin/conda",
        channels=lines(channels),
        conda_lock=lines(f"{file.path} {file.sha256}" for file in conda_files(ctx)),
        addresses=lines(map(address, channels)),
        python_version=knobs.python, lock_options="--no-deps" if torch else "",
        afresh="yes" if wanted.afresh else "", aside=wanted.aside, import_gate=stack.import_gate, made=json.dumps(made))
    return job(step, call, knobs.timeout_env, stdin=stack.lock_beside(torch, knobs.python))


def _made(ctx: Context) -> dict[str, Any]:
    """The record of an env of that stack, but for what the build itself finds out."""
    stack = ctx.stack
    torch = stack.torch_source(ctx.knobs.source_torch_index, ctx.knobs.python)
    return {"stack": stack.name, "unlocked": list(torch.names) if torch and not torch.hashed else [],
            "standin": stack.standin, "lock_sha256": stack.lock_sha256, "python": ctx.knobs.python}


def _mend(run: Run, ctx: Context, step: Step, wanted: Mend) -> JobCommand:
    """Put single packages right in the env that runs, from the same lock; nothing else moves."""
    lock = ctx.stack.lock_for(wanted.names, ctx.knobs.python)
    call = MEND(*wanted.names, **_packages.installers(run, ctx, wanted.names), root=envs_dir(ctx),
                name=ctx.knobs.env_name, path=wanted.path, afresh="yes" if wanted.afresh else "",
                import_gate=ctx.stack.import_gate, made=json.dumps(_made(ctx)))
    return job(step, call, ctx.knobs.timeout_env, stdin=lock)


APPLIER = Applier("Env | Build or mend the env", commands, claim=claim)
