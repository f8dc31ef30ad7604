"""A model in HF_HOME before anybody trains: a job of its own, where the knob prefetch_model names one."""

from __future__ import annotations

import json
from collections.abc import Iterator

from qwen_rig.catalog.sources import load_sources
from qwen_rig.deploy.prefetch.plan import spec
from qwen_rig.plan import Context, Step
from qwen_rig.run.adapter import FunctionCommand
from qwen_rig.run.converge import Applier
from qwen_rig.run.programs import env_path, program
from qwen_rig.run.run import Run


def commands(run: Run, ctx: Context, step: Step) -> Iterator[FunctionCommand]:
    """The model's files, checked against the hub's listing."""
    endpoint = run.network.route(ctx, ["huggingface"]).first("huggingface") or load_sources().huggingface.url
    given = spec(ctx, endpoint)
    words = ["--spec", json.dumps(given), "--record", f"{env_path(ctx)}/.rig/prefetch.json"]
    yield program(ctx, ("prefetch.py",), words, ctx.knobs.timeout_prefetch,
                  way_out=run.network.way_out(ctx))


APPLIER = Applier("Model | Prefetch the model", commands)
