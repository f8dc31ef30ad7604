"""The steps of deploy/5090.py. Each is a folder here: plan.py decides (pure), apply.py has the commands; a step that
writes files outside the env names them in `watches()` of its __init__.py, which loads little: every probe asks it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from qwen_rig import step_choice

if TYPE_CHECKING:
    from qwen_rig.knobs import Knobs

ORDER = (  # the only list of steps: the order of the guide; a step's name is its folder's
    "repository",
    "driver",
    "guard",
    "reboot",
    "compilers",
    "toolkit",
    "conda",
    "env",
    "flash_attn",
    "training",
    "verification",
    "prefetch",
)


def watched() -> tuple[str, ...]:
    """Every path whose state the probe of a host must bring: those that the steps' folders name."""
    folders = (import_module(f"{__name__}.{name}") for name in ORDER)
    return tuple(path for folder in folders for path in getattr(folder, "watches", tuple)())


def refuse_unknown_steps(knobs: Knobs, where: str) -> None:
    """Raises RigError where only_steps or skip_steps names no step, or leaves none."""
    step_choice.refuse_unknown(knobs, ORDER, where)
