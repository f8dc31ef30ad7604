"""The plan's nouns. Plain data: the dry run, the live run, the JSON and the report are all drawn from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import Enum
from typing import Any


class Action(str, Enum):
    """What a step does to its component. The four verbs change the host; the others say why nothing happens."""

    ADD = "add"
    CHANGE = "change"
    REMOVE = "remove"
    REBOOT = "reboot"
    NONE = "none"  # right already
    NA = "n/a"  # not this host's business

    @property
    def changes(self) -> bool:
        return self not in (Action.NONE, Action.NA)


@dataclass(frozen=True)
class Step:
    """One component of one host: what is there, what is wanted, what will be done about it and why.

    `bytes` is what the step fetches (0 where nothing or not known); `later` marks a decision that an earlier
    step of the same run may still alter; `data` is what the step's commands need.
    """

    component: str
    title: str
    now: str
    wanted: str
    action: Action
    why: str
    bytes: int = 0
    later: bool = False
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Refusal:
    """Why a host is left untouched: what is wrong, and the one next thing to do."""

    what: str
    remedy: str


@dataclass(frozen=True)
class Plan:
    """All steps for one host in the guide's order, or the reasons for which it is refused."""

    host: str
    headline: str
    steps: tuple[Step, ...]
    refusals: tuple[Refusal, ...] = ()
    caveats: tuple[str, ...] = ()

    @property
    def changes(self) -> tuple[Step, ...]:
        return tuple(step for step in self.steps if step.action.changes)

    def step(self, component: str) -> Step:
        """The step of that component; KeyError where there is none."""
        for step in self.steps:
            if step.component == component:
                return step
        raise KeyError(component)

    def step_changes(self, component: str) -> bool:
        """Whether that step is in the plan and changes the host."""
        return any(step.component == component for step in self.changes)

    def to_json(self) -> dict[str, Any]:
        """The same object as plain data (the steps' private `data` left out: it may hold scripts)."""
        plain = asdict(self)
        for step in plain["steps"]:
            step.pop("data")
            step["action"] = step["action"].value
        return plain
