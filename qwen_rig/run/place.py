"""What qwen_rig/shell/place.sh needs of qwen_rig/plan/place.py: the variables that send things to the data disk."""

from __future__ import annotations

from qwen_rig.plan import Context
from qwen_rig.plan.place import environment
from qwen_rig.program import lines


def place(ctx: Context) -> str:
    """A line NAME=FOLDER for each; empty where no data disk is used."""
    return lines(f"{name}={folder}" for name, folder in environment(ctx).items())
