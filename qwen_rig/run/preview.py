"""Probe, plan, show: what every run does before it declares a single operation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from qwen_rig import ledger, render
from qwen_rig.catalog.stack import Stack
from qwen_rig.plan import Plan
from qwen_rig.plan.drift import outdated, snapshot
from qwen_rig.plan.planner import new_env

from . import adapter
from .adapter import Host
from .run import Run

T = TypeVar("T")
NAMED = 4  # differences from a saved plan that a card names


@dataclass
class _Preparing:
    """How far the hosts of a run are with their plans. `left`: hosts still to be planned, None before the first;
    `stacks`: the stack to build, by host."""

    left: int | None = None
    stacks: dict[str, Stack] = field(default_factory=dict)


def accepted() -> bool:
    """Plan for the current host; the last host to be planned shows the plans of all. False: it is left untouched."""
    host = adapter.current_host()
    state, run = host.state, Run.of(host)
    preparing, report = run.part(_Preparing), run.report
    if preparing.left is None:
        preparing.left = len(state.active_hosts)
    probed(host, lambda: _plan(run, host, preparing))
    preparing.left -= 1
    if preparing.left == 0:
        plans = [report.plans[each.name] for each in adapter.hosts(state) if each.name in report.plans]
        notes = render.notes((stack, report.plans[name]) for name, stack in preparing.stacks.items())
        report.show(plans, notes, verbose=state.print_noop_info)
    if host.name in report.cards:
        adapter.leave_out(host)
        return False
    return True


def _plan(run: Run, host: Host, preparing: _Preparing) -> None:
    """The host's plan, on record; a card where it is refused."""
    ctx, report = run.memory.context(host), run.report
    plan = ledger.estimated(run.lookups.checked(ctx, run.memory.plan(host)), *run.memory.alike[host.name])
    report.plans[host.name] = plan
    report.states[host.name] = snapshot(ctx)
    if run.saved:
        _hold(run, plan, run.saved)
    if new_env(plan.steps):
        preparing.stacks[host.name] = ctx.stack
    if plan.refusals:
        what = "; ".join(refusal.what for refusal in plan.refusals)
        remedy = "; ".join(dict.fromkeys(refusal.remedy for refusal in plan.refusals))
        report.fail(host.name, f"refused: {what}", remedy, later=True)
    report.caveats[host.name] += plan.caveats


def _hold(run: Run, plan: Plan, saved: dict[str, object]) -> None:
    """Refuse the host unless its plan is the saved one."""
    rows = saved["hosts"]
    assert isinstance(rows, list)
    meant = next((row for row in rows if row["host"] == plan.host), None)
    again = "look at it anew: rig plan --save FILE"
    if meant is None:
        run.report.fail(plan.host, "the saved plan has nothing for it", again, later=True)
    elif lines := outdated(meant, plan, run.report.states[plan.host]):
        what = "; ".join(lines[:NAMED]) + (f" and {len(lines) - NAMED} more" if len(lines) > NAMED else "")
        made = render.moment(str(saved["made"]))
        run.report.fail(plan.host, f"it has changed since the plan was saved ({made}): {what}", again, later=True)


def probed(host: Host, see: Callable[[], T], later: bool = True, diagnose: bool = False) -> T | None:
    """What `see` makes of a host; None, and a card, where that raises (Report.contained)."""
    return Run.of(host).report.contained(host.name, see, later, diagnose)
