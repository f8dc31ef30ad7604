"""training.json, accelerate.yaml and train_qwen.py in the env: the guide's settings for the card that is here."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.resources import files

from qwen_rig.deploy.training.plan import TrainingPayload
from qwen_rig.plan import Context, Step
from qwen_rig.plan.env import envs_dir
from qwen_rig.run.adapter import StringCommand
from qwen_rig.run.converge import Applier, script
from qwen_rig.run.files import written
from qwen_rig.run.run import Run
from qwen_rig.run.writer import claim
from qwen_rig.training import accelerate_text


def commands(run: Run, ctx: Context, step: Step) -> Iterator[StringCommand]:
    """training.json, accelerate.yaml and train_qwen.py."""
    settings = step.need(TrainingPayload).settings
    texts = {"accelerate.yaml": accelerate_text(settings), "training.json": json.dumps(settings, indent=1) + "\n"}
    folder = f"{envs_dir(ctx)}/{ctx.knobs.env_name}/.rig"
    yield script(written(folder, texts, piped="train_qwen.py"), 60,
                 stdin=(files("qwen_rig.host") / "train_qwen.py").read_text())


APPLIER = Applier("Training settings | Write the training settings", commands, claim=claim)
