"""The plan of one host, by the planners of deploy.ORDER. Pure: no pyinfra."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import import_module
from types import MappingProxyType

from qwen_rig.deploy import ORDER
from qwen_rig.knobs import Knobs
from qwen_rig.plan import Context, Plan, assemble, chosen
from qwen_rig.plan.explain import Explanation, explain_step
from qwen_rig.plan.planner import Planner


@cache
def planners() -> Mapping[str, Planner]:
    """Each step's planner by the step's name, in the order in which the steps are done."""
    found = {name: import_module(f"qwen_rig.deploy.{name}.plan").PLANNER for name in ORDER}
    assert all(isinstance(planner, Planner) for planner in found.values())
    return MappingProxyType(found)


def make_plan(ctx: Context) -> Plan:
    """The plan for one host. Never raises for odd facts."""
    return assemble(ctx, planners())


def refuse_unknown_steps(knobs: Knobs, where: str) -> None:
    """Raises RigError where only_steps or skip_steps names no step, or leaves none."""
    chosen.refuse_unknown(knobs, ORDER, where)


def explain(ctx: Context, plan: Plan, step: str) -> Explanation:
    """Why a step of that plan is what it is; KeyError where there is no such step."""
    return explain_step(ctx, plan, step, planners()[step])
