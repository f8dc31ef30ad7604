"""The plan's nouns. Plain data: the dry run, the live run, the JSON and the report are all drawn from it.

docs/plan.schema.json documents the JSON.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any, TypeVar

from qwen_rig.catalog.advisories import Advisory
from qwen_rig.catalog.stack import Deviation
from qwen_rig.frozen import frozen


class Action(str, Enum):
    """What a step does to its component. The three verbs change the host; the others say why nothing happens."""

    ADD = "add"
    CHANGE = "change"
    REBOOT = "reboot"
    NONE = "none"  # right already
    NA = "n/a"  # not this host's business

    @property
    def changes(self) -> bool:
        return self not in (Action.NONE, Action.NA)


@frozen
class FileChange:
    """A file that a step writes: what it holds now (None: it isn't there; "" too where it can't be read) and then."""

    path: str
    before: str | None
    after: str


@frozen
class Applied:
    """How the last apply left a host: when (ISO 8601, UTC), and the snapshot (qwen_rig/plan/drift.py)."""

    when: str
    snapshot: Mapping[str, Any]


@frozen
class Drift:
    """Something that isn't as the last apply left it, and that no run of qwen-rig has changed since."""

    what: str
    was: str
    now: str
    file: FileChange | None = None


@frozen
class Payload:
    """What a step's commands need. Each kind of step has a class of its own, beside the planner that makes it."""

    @property
    def mode(self) -> str:
        """Which of a step's ways it is, of those that take differently long; "-" where there is but one."""
        return "-"

    @property
    def new_env(self) -> bool:
        """Whether the step puts another env in place, so that all that was proved of the old one is void."""
        return False

    def next_commands(self, login: str, host: str) -> list[str]:
        """What a user may want to copy when the run is over; `login`: the ssh command that reaches the host."""
        return []


P = TypeVar("P", bound=Payload)


@frozen
class Step:
    """One component of one host: what is there, what is wanted, what will be done about it and why.

    `bytes` is what the step fetches, None where that isn't known; `known_after` names the step ("env", "reboot")
    that must be done before `wanted` is certain, "" where it is certain now; `problems` names each thing that is wrong;
    `seconds` is what the step took in recorded runs, None where there are none; `payload` is what its commands need.
    `fetches`: the roles that it fetches from, `packages`: the locked packages among that; `disk`: (place, MiB) that it
    fills; `without`: the setting that does without it. `won`: what the host has by it, for the recap, where it is right
    already ("": nothing that a recap need tell). `component`: its folder's name, which the plan gives it.
    """

    title: str
    now: str
    wanted: str
    action: Action
    why: str
    bytes: int | None = 0
    known_after: str = ""
    problems: tuple[str, ...] = ()
    files: tuple[FileChange, ...] = ()
    seconds: float | None = None
    payload: Payload | None = None
    fetches: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    disk: tuple[tuple[str, int], ...] = ()
    without: str = ""
    won: str = ""
    component: str = ""

    def need(self, kind: type[P]) -> P:
        """The payload, of that kind. TypeError where it is another."""
        if not isinstance(self.payload, kind):
            raise TypeError(f"step {self.component} holds {type(self.payload).__name__}, no {kind.__name__}")
        return self.payload


@frozen
class Refusal:
    """Why a host is left untouched: what is wrong, and the one next thing to do."""

    what: str
    remedy: str


@frozen
class Plan:
    """All steps for one host in the guide's order, or the reasons for which it is refused.

    `since` is when this controller last applied to the host (ISO 8601), None where it never did; `drift` is what has
    changed since then; `fingerprint` is of the host's snapshot and of what is wanted of it: a saved plan is held to it
    and to its steps. Where an env is to be built, `deviations` tells where its stack leaves the guide, `advisories`
    what is known of its versions.
    """

    host: str
    headline: str
    steps: tuple[Step, ...]
    refusals: tuple[Refusal, ...] = ()
    caveats: tuple[str, ...] = ()
    drift: tuple[Drift, ...] = ()
    since: str | None = None
    gpu_users: tuple[str, ...] = ()
    fingerprint: str = ""
    deviations: tuple[Deviation, ...] = ()
    advisories: tuple[Advisory, ...] = ()

    @property
    def changes(self) -> tuple[Step, ...]:
        return tuple(step for step in self.steps if step.action.changes)

    @property
    def reboots(self) -> bool:
        """Whether the plan restarts the host."""
        return any(step.action is Action.REBOOT for step in self.steps)

    def step(self, component: str) -> Step:
        """The step of that component; KeyError where there is none."""
        for step in self.steps:
            if step.component == component:
                return step
        raise KeyError(component)

    def fetching(self, *roles: str) -> list[Step]:
        """The changing steps that fetch from one of these roles."""
        return [step for step in self.changes if set(step.fetches) & set(roles)]

    def step_changes(self, component: str) -> bool:
        """Whether that step is in the plan and changes the host."""
        return any(step.component == component for step in self.changes)
