"""The pure half of a step: what its folder's plan.py offers to the plan and to `explain`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from qwen_rig.frozen import frozen
from qwen_rig.plan.context import Context
from qwen_rig.plan.model import Refusal, Step

OURS = "qwen-rig's own rule"


@frozen
class Fact:
    """What was read of the host, and the fact that reads it (`pyinfra INVENTORY fact NAME` shows it alone)."""

    name: str
    value: str
    read_by: str


@frozen
class Rule:
    """A rule that the decision follows, and its source."""

    text: str
    source: str


Parts = tuple[list[Fact], list[Rule]]


def _nothing(ctx: Context, steps: Sequence[Step]) -> list[Refusal]:
    return []


def _never(ctx: Context, step: Step) -> bool:
    return False


@frozen
class Planner:
    """The decisions of one step. Its name is its folder's, and its place in the plan is that in deploy.ORDER.

    `step`: from the context and the steps before it to the step; None where nobody asked for it. `explain`: the facts
    and rules behind it. `knobs`: those that steer it. `refusals`: why the host must be left alone, given all steps.
    `known_after_reboot`: whether only the rebooted host can tell what a step will be. `unasked`: the step to explain
    where it is in no plan. `needs`: the steps without which it can't be done, where these are not done yet.
    """

    step: Callable[[Context, Sequence[Step]], Step | None]
    explain: Callable[[Context], Parts]
    knobs: tuple[str, ...] = ()
    refusals: Callable[[Context, Sequence[Step]], list[Refusal]] = _nothing
    known_after_reboot: Callable[[Context, Step], bool] = _never
    unasked: Callable[[Context], Step] | None = None
    needs: tuple[str, ...] = ()


def fact(name: str, value: Any, read_by: str) -> Fact:
    """A fact by the name that it is told under; `none` where there is no value."""
    return Fact(name, "none" if value in (None, "", [], ()) else str(value), f"facts.{read_by}")


def gpus(ctx: Context) -> list[Fact]:
    """Each card, as the kernel and nvidia-smi know it."""
    return [fact("GPU", f"{gpu.name} ({gpu.device_id or 'no PCI id'}), compute capability "
                 f"{gpu.compute_capability or 'not known'}, {gpu.memory_mib or '?'} MiB", "gpu.PciGpus, facts.gpu.Gpus")
            for gpu in ctx.gpus]


def loaded(ctx: Context) -> list[Fact]:
    """The driver that runs, the one on disk, and what nvidia-smi complains of."""
    driver = ctx.state.driver
    return [fact("driver loaded", f"{driver.loaded_version or 'none'} {driver.flavour or ''}".strip(),
                 "driver.NvidiaDriver"),
            fact("driver installed", f"{driver.installed_version or 'none'} {driver.installed_flavour or ''}".strip(),
                 "driver.NvidiaDriver"),
            fact("driver's complaint", driver.excerpt or driver.error, "driver.NvidiaDriver")]


def new_env(steps: Sequence[Step]) -> bool:
    """Whether one of these steps puts another env in place."""
    return any(step.action.changes and step.payload is not None and step.payload.new_env for step in steps)
