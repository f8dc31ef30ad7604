"""The steps that only_steps and skip_steps leave out, and the steps that would miss them. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches

from qwen_rig.errors import RigError
from qwen_rig.knobs import Knobs
from qwen_rig.plan.model import Action, Refusal, Step
from qwen_rig.plan.planner import Planner

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


def without(step: Step, knob: str) -> Step:
    """The step, left out: it changes nothing, whatever it would have done."""
    if not step.action.changes:
        return step
    return replace(step, action=Action.NA, why=f"left out by {knob}: {step.now} → {step.wanted}", bytes=0, files=(),
                   problems=(), fetches=(), packages=(), disk=())


def missed(steps: Sequence[Step], would_change: Collection[str], planners: Mapping[str, Planner]) -> list[Refusal]:
    """A refusal for each step that is left out, would have changed something, and is needed by a step that is done."""
    found = []
    for name in would_change:
        by = [step.component for step in steps if step.action.changes and name in planners[step.component].needs]
        if by:
            names = ", ".join(by)
            found.append(Refusal(f"step {name} is left out and not done yet, and {names} need{'s' * (len(by) == 1)} it",
                                 f"do {name} as well, or leave out {names} too (--only, --skip; the knobs only_steps, "
                                 "skip_steps)"))
    return found


def _words(value: str | None) -> list[str]:
    return (value or "").replace(",", " ").split()
