"""What a certificate demands, and what cards were seen to do: qwen_rig/data/gates.yml and seen.yml, checked."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator

from qwen_rig.catalog.datafile import (
    DATA,
    NULL_IS_EMPTY,
    Flag,
    MaybeTexts,
    Number,
    PatternText,
    Row,
    Text,
    Whole,
    load,
    one_of,
    wrong,
)
from qwen_rig.catalog.yamlfile import shown
from qwen_rig.errors import RigError
from qwen_rig.frozen import frozen

LEVELS = ("warn", "fail")


@frozen
class Gate:
    """One check's row. `limits` are its numbers by name, in the units that the names say."""

    name: str
    title: str
    required: bool
    limits: Mapping[str, float]
    source: str

    def __getitem__(self, limit: str) -> float:
        return self.limits[limit]


@frozen
class Signature:
    """A kind of line in the kernel log. `during`: its level where it comes while the card is tested."""

    says: re.Pattern[str]
    level: str
    means: str
    during: str


@frozen
class Seen:
    """What a card model was seen to do; None where nobody measured it. Units: TFLOP/s, GB/s."""

    name: str
    matmul: tuple[float, float] | None
    copy: tuple[float, float] | None
    all_reduce: Mapping[int, float]
    source: str


@frozen
class Gates:
    """All gates, and what was seen of each card."""

    checks: Mapping[str, Gate]
    throttle: Mapping[str, str]  # reason → level
    kernel_log: tuple[Signature, ...]
    changed_pct: float
    seen: Mapping[str, Seen]


def _limits(row: Any) -> Any:
    """A check's row with its numbers, which have names of their own, below one key."""
    if not isinstance(row, dict):
        return row
    own = {key: value for key, value in row.items() if key in ("title", "required", "source")}
    return {**own, "limits": {key: value for key, value in row.items() if key not in own}}


def _range(values: Any) -> Any:
    if not isinstance(values, list) or len(values) != 2:
        raise wrong(f"must be [least, most], not {shown(values)}")
    return values


def _ordered(values: tuple[float, float]) -> tuple[float, float]:
    if not values[0] <= values[1]:
        raise wrong(f"must be [least, most], not {shown(list(values))}")
    return values


_Level = Annotated[Text, one_of(*LEVELS)]
_Range = Annotated[tuple[Number, Number], BeforeValidator(_range), AfterValidator(_ordered)]


@frozen
class _Check(Row):
    title: Text
    required: Flag
    source: Text
    limits: dict[Text, Number]


@frozen
class _Throttle(Row):
    warn: MaybeTexts = ()
    fail: MaybeTexts = ()


@frozen
class _LogLine(Row):
    says: PatternText
    level: _Level
    means: Text
    during: _Level | None = None


@frozen
class _Diff(Row):
    changed_pct: Number


@frozen
class GatesFile(Row):
    """The form of gates.yml."""

    checks: dict[Text, Annotated[_Check, BeforeValidator(_limits)]]
    throttle_reasons: _Throttle
    diff: _Diff
    kernel_log: Annotated[tuple[_LogLine, ...], NULL_IS_EMPTY] = ()


@frozen
class _Card(Row):
    name: Text
    source: Text
    matmul: _Range | None = None
    copy: _Range | None = None
    all_reduce: dict[Whole, Number] | None = None


@frozen
class SeenFile(Row):
    """The form of seen.yml."""

    cards: dict[Text, _Card]


@cache
def load_gates(gates: Path = DATA / "gates.yml", seen: Path = DATA / "seen.yml") -> Gates:
    """The project's gates. Raises RigError naming file and key where the data is wrong."""
    file, cards = load(gates, GatesFile), load(seen, SeenFile).cards
    return Gates(
        {name: Gate(name, row.title, row.required, row.limits, row.source) for name, row in file.checks.items()},
        {reason: level for level in LEVELS for reason in getattr(file.throttle_reasons, level)},
        tuple(Signature(re.compile(row.says), row.level, row.means, row.during or row.level)
              for row in file.kernel_log),
        file.diff.changed_pct,
        {key: Seen(row.name, row.matmul, row.copy, row.all_reduce or {}, row.source) for key, row in cards.items()})


def gate(gates: Gates, name: str) -> Gate:
    """The row of a check. Raises RigError where gates.yml lacks it."""
    try:
        return gates.checks[name]
    except KeyError:
        raise RigError(f"there is no gate for the check {name!r}", "qwen_rig/data/gates.yml", "add a row") from None
