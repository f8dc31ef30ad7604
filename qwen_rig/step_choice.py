"""The steps that only_steps and skip_steps leave out. Pure."""

from __future__ import annotations

from collections.abc import Collection
from difflib import get_close_matches
from typing import TYPE_CHECKING

from qwen_rig.errors import RigError

if TYPE_CHECKING:
    from qwen_rig.knobs import Knobs

KNOBS = {"only_steps": "--only", "skip_steps": "--skip"}


def refuse_unknown(knobs: Knobs, names: Collection[str], where: str) -> None:
    """Raises RigError where a knob names no step, or where no step is left."""
    for knob in KNOBS:
        for word in _words(getattr(knobs, knob)):
            if word not in names:
                close = get_close_matches(word, names, 1)
                raise RigError(f"{knob}: there is no step {word!r}", where, f"did you mean {close[0]}?" if close
                               else f"the steps are {', '.join(names)}")
    if len(left_out(knobs, names)) == len(names):
        raise RigError("only_steps and skip_steps leave no step to do", where, "leave one of them out")


def left_out(knobs: Knobs, names: Collection[str]) -> dict[str, str]:
    """Each step that is left out, with the knob that does it."""
    only, skip = _words(knobs.only_steps), _words(knobs.skip_steps)
    return {name: "skip_steps" if name in skip else "only_steps" for name in names
            if name in skip or (only and name not in only)}


def _words(value: str | None) -> list[str]:
    return (value or "").replace(",", " ").split()
