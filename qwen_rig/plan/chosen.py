"""The steps that only_steps and skip_steps leave out, and the steps that would miss them. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from qwen_rig.plan.model import Action, Refusal, Step
from qwen_rig.plan.planner import Planner


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
