"""The shell side of qwen_rig/plan/place.py: the data disk's folders made, and the variables that send things there."""

from __future__ import annotations

import shlex

from qwen_rig.plan import Context
from qwen_rig.plan.place import environment


def exports(ctx: Context) -> str:
    """Lines for the head of a script that downloads or unpacks; none where no data disk is used."""
    variables = environment(ctx)
    if not variables:
        return ""
    folders = " ".join(shlex.quote(folder) for folder in variables.values())
    return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in variables.items()) + \
        f"mkdir -p {folders}\n"
