"""training.json, accelerate.yaml and train_qwen.py in the env: the guide's settings for the card that is here."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from importlib.resources import files

from pyinfra.api import StringCommand, deploy

from rig.plan import Context, Step
from rig.plan.env import envs_dir
from rig.training import accelerate_text

from ._converge import converge, script


@deploy("Training settings")
def training() -> None:
    """What train_qwen.py reads, and train_qwen.py."""
    converge("training", "Write the training settings", _settings)


def _settings(ctx: Context, step: Step) -> Iterator[StringCommand]:
    text = json.dumps(step.data["settings"], indent=1)
    accelerate = accelerate_text(step.data["settings"])
    folder = shlex.quote(f"{envs_dir(ctx)}/{ctx.knobs.env_name}/.rig")
    yield script(f"""cd {folder}
cat > train_qwen.py.new
mv train_qwen.py.new train_qwen.py
printf '%s' {shlex.quote(accelerate)} > accelerate.yaml.new
mv accelerate.yaml.new accelerate.yaml
printf '%s\\n' {shlex.quote(text)} > training.json.new
mv training.json.new training.json
""", 60, stdin=(files("rig.host") / "train_qwen.py").read_text())
