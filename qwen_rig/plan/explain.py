"""Why a step of a plan is what it is: the facts read, the rules followed with their sources, the decision. Pure."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

from qwen_rig.frozen import frozen
from qwen_rig.plan.context import Context
from qwen_rig.plan.document import of_step
from qwen_rig.plan.model import Plan, Step
from qwen_rig.plan.planner import Fact, Planner, Rule


@frozen
class Explanation:
    """Facts, rules and decision of one step of one host."""

    host: str
    facts: tuple[Fact, ...]
    rules: tuple[Rule, ...]
    step: Step | None
    refusals: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The same as plain data."""
        return {"facts": [asdict(fact) for fact in self.facts], "rules": [asdict(rule) for rule in self.rules],
                "step": of_step(self.step) if self.step else None, "refusals": list(self.refusals)}


def explain_step(ctx: Context, plan: Plan, name: str, planner: Planner) -> Explanation:
    """The explanation of one step. `step` is None where the host is refused before it has any."""
    step = next((step for step in plan.steps if step.component == name), None)
    if step is None and plan.steps and planner.unasked is not None:
        step = replace(planner.unasked(ctx), component=name)
    facts, rules = planner.explain(ctx)
    knobs = tuple(Rule(f"{knob}={getattr(ctx.knobs, knob)}", "knob: group_data/all.py, lab.yml or --data")
                  for knob in planner.knobs)
    return Explanation(ctx.host, tuple(facts), (*rules, *knobs), step,
                       tuple(f"{refusal.what} → {refusal.remedy}" for refusal in plan.refusals))
