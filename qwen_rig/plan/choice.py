"""Which of a model's stacks a host takes: the one for older drivers where CUDA 13 can't run. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from packaging.version import Version

from qwen_rig.catalog.models import find
from qwen_rig.catalog.rules import Rules
from qwen_rig.catalog.stack import Stack
from qwen_rig.facts.state import State
from qwen_rig.knobs import Knobs
from qwen_rig.plan.context import version


def for_driver(wanted: Knobs, state: State, rules: Rules, stack_of: Callable[[str], Stack]) -> Knobs:
    """The knobs, with the stack for older drivers where `model` settled the stack, and this host's driver is too old
    for it and not ours to replace."""
    if not wanted.model:
        return wanted
    ways = find(wanted.model, "model").ways
    if ways.older_drivers is None or wanted.stack != ways.stack:
        return wanted
    floor = Version(rules.least_driver(stack_of(ways.stack).cuda, None))
    ours = state.machine.kind not in ("container", "wsl") and wanted.nvidia_driver != "never"
    loaded = version(state.driver.loaded_version)
    too_old = Version(str(wanted.nvidia_driver_branch)) < Version(str(floor.major)) if ours else \
        loaded is not None and loaded < floor
    older = stack_of(ways.older_drivers)
    if not too_old:
        return wanted
    return replace(wanted, stack=older.name, python=wanted.python if wanted.python in older.pythons else older.python)


def why(wanted: Knobs) -> str:
    """Why it is this stack, "" where the user named it himself or the guide's is taken."""
    if not wanted.model:
        return ""
    ways = find(wanted.model, "model").ways
    if wanted.stack == ways.stack:
        return f"{wanted.model} takes stack {wanted.stack}"
    return f"{wanted.model} takes stack {wanted.stack} with a driver older than 580" \
        if wanted.stack == ways.older_drivers else ""
