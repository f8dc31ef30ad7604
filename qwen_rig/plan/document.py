"""Plans as JSON: one document for `rig plan --json` and for a saved plan. docs/plan.schema.json documents it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from qwen_rig.plan.files import unified
from qwen_rig.plan.model import Drift, FileChange, Plan, Step
from qwen_rig.redaction import redacted

FORM = 2  # of the document; a saved plan of another form is refused


Commands = Sequence[tuple[str, str, list[str]]]  # component, title, what it would run


def of_plan(plan: Plan, state: Mapping[str, Any] | None = None, commands: Commands = ()) -> dict[str, Any]:
    """One host's plan as plain data, with the snapshot it was made from; `commands` where they were asked for."""
    lines = {component: shown for component, _, shown in commands}
    return {
        "host": plan.host, "headline": plan.headline, "fingerprint": plan.fingerprint, "since": plan.since,
        "drift": [_drift(row) for row in plan.drift], "gpu_users": list(plan.gpu_users),
        "refusals": [{"what": row.what, "remedy": row.remedy} for row in plan.refusals],
        "steps": [of_step(step, lines.get(step.component)) for step in plan.steps], "caveats": list(plan.caveats),
        "deviations": [{"ours": row.ours, "guide": row.guide, "why": row.why} for row in plan.deviations],
        "advisories": [{"text": row.text, "source": row.source} for row in plan.advisories],
        "reboots": plan.reboots, "seconds": seconds(plan), "state": dict(state or {}),
    }


def seconds(plan: Plan) -> float | None:
    """What the plan's changes took in recorded runs, in all; None where none of them was ever timed."""
    timed = [step.seconds for step in plan.changes if step.seconds is not None]
    return sum(timed) if timed else None


def of_step(step: Step, commands: list[str] | None = None) -> dict[str, Any]:
    """A step; its private payload is left out: it holds what its commands need."""
    return {
        "component": step.component, "title": step.title, "action": step.action.value, "now": step.now,
        "wanted": step.wanted, "known_after": step.known_after or None, "why": step.why,
        "problems": list(step.problems), "bytes": step.bytes, "seconds": step.seconds,
        "files": [_file(change) for change in step.files], "commands": commands,
    }


def of_drift(plan: Plan) -> dict[str, Any]:
    """What has changed on a host since the last apply from here (`since`; None: never), not by it."""
    return {"since": plan.since, "drift": [_drift(row) for row in plan.drift]}


def _drift(row: Drift) -> dict[str, Any]:
    return {"what": row.what, "was": row.was, "now": row.now, "file": _file(row.file) if row.file else None}


def _file(change: FileChange) -> dict[str, Any]:
    return {"path": change.path, "diff": unified(change)}


def of_all(plans: Sequence[Plan], failures: Sequence[dict[str, Any]], made: str, asked: Mapping[str, Any],
           states: Mapping[str, Mapping[str, Any]], commands: Mapping[str, Commands]) -> dict[str, Any]:
    """The whole document: plans of all hosts, and what became of those that have none or are refused."""
    return {
        "form": FORM, "made": made, **asked,
        "hosts": [of_plan(plan, states.get(plan.host), commands.get(plan.host, ())) for plan in plans],
        "failures": [{**row, "what": redacted(row["what"])} for row in failures],
    }
