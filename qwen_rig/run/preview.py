"""Probe, plan, show: what every run does before it declares a single operation."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any, TypeVar

from pyinfra.api.exceptions import PyinfraError
from pyinfra.context import ctx_state, host

from qwen_rig import ledger, render
from qwen_rig.catalog.stack import Stack
from qwen_rig.deploy.env.plan import Build
from qwen_rig.errors import RigError
from qwen_rig.plan import Plan
from qwen_rig.plan.drift import outdated, snapshot
from qwen_rig.run import network as _network
from qwen_rig.run import report as _report
from qwen_rig.run import session as _session

T = TypeVar("T")
NAMED = 4  # differences from a saved plan that a card names
_stacks: dict[str, Stack] = {}  # what each host that is about to get an env builds it of
saved: dict[str, Any] | None = None  # a saved plan that every host's own must match (rig apply FILE)
_expected: list[int] = []  # how many hosts there were when the first was prepared


def _hold(plan: Plan) -> None:
    """Refuse the current host unless its plan is the saved one."""
    assert saved is not None
    meant = next((row for row in saved["hosts"] if row["host"] == plan.host), None)
    again = "look at it anew: rig plan --save FILE"
    if meant is None:
        _report.fail(plan.host, "the saved plan has nothing for it", again, later=True)
    elif lines := outdated(meant, plan, _report.states[plan.host]):
        what = "; ".join(lines[:NAMED]) + (f" and {len(lines) - NAMED} more" if len(lines) > NAMED else "")
        _report.fail(plan.host, f"it has changed since the plan was saved ({render.moment(saved['made'])}): {what}",
                     again, later=True)


def accepted() -> bool:
    """Plan for the current host; the last host to be planned shows the plans of all. False: it is left untouched."""
    state = ctx_state.get()
    if not _expected:
        _expected.append(len(state.active_hosts))
        _known(state.current_deploy_filename)
    probed(_plan)
    _expected[0] -= 1
    if _expected[0] == 0:
        inventory = [h.name for h in state.inventory if h.name in _report.plans]
        plans = [_report.plans[name] for name in inventory]
        notes = render.notes((stack, _report.plans[name]) for name, stack in _stacks.items())
        _report.show(plans, notes, verbose=state.print_noop_info)
    if host.name in _report.cards:
        state.fail_hosts({state.inventory.get_host(host.name)})
        return False
    return True


def _known(file: str | None) -> None:
    """Register the deploy file as a module, which to pyinfra it isn't.

    pyinfra puts operations in order by the call stack, read with `inspect`, which looks through all of sys.modules, on
    each host and for each operation, for a file that belongs to none: a tenth of a run over 30 hosts.
    """
    if file:
        module = ModuleType(f"pyinfra deploy {file}")
        module.__file__ = file
        sys.modules[module.__name__] = module


def _plan() -> None:
    """The current host's plan, on record; a card where it is refused."""
    plan = ledger.estimated(_network.checked(host, _session.plan(host)), *_session.alike[host.name])
    _report.plans[host.name] = plan
    _report.states[host.name] = snapshot(_session.context(host))
    if saved:
        _hold(plan)
    if plan.step_changes("env") and isinstance(plan.step("env").payload, Build):
        _stacks[host.name] = _session.context(host).stack
    if plan.refusals:
        what = "; ".join(refusal.what for refusal in plan.refusals)
        remedy = "; ".join(dict.fromkeys(refusal.remedy for refusal in plan.refusals))
        _report.fail(host.name, f"refused: {what}", remedy, later=True)
    _report.caveats[host.name] += plan.caveats


def probed(see: Callable[[], T]) -> T | None:
    """What `see` makes of the current host; None, and a card, where the host can't be read or its knobs are wrong."""
    try:
        return see()
    except _session.ProbeFailed as error:
        _report.fail(host.name, str(error), "run `pyinfra INVENTORY fact facts.probe.HostState` to see it", later=True)
    except RigError as error:
        _report.fail(host.name, error.what, error.remedy, later=True)
    except PyinfraError as error:  # the connection broke, or the fact's command failed
        _report.fail(host.name, f"the probe failed: {error}", "see its lines above", later=True)
    return None
