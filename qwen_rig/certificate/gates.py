"""What a certificate demands, and what cards were seen to do: qwen_rig/data/gates.yml and seen.yml, checked."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from qwen_rig.catalog import schema
from qwen_rig.catalog.schema import Table
from qwen_rig.errors import RigError

DATA = Path(__file__).parents[1] / "data"
LEVELS = ("warn", "fail")


@dataclass(frozen=True)
class Gate:
    """One check's row. `limits` are its numbers by name, in the units that the names say."""

    name: str
    title: str
    required: bool
    limits: Mapping[str, float]
    source: str

    def __getitem__(self, limit: str) -> float:
        return self.limits[limit]


@dataclass(frozen=True)
class Signature:
    """A kind of line in the kernel log. `during`: its level where it comes while the card is tested."""

    says: re.Pattern[str]
    level: str
    means: str
    during: str


@dataclass(frozen=True)
class Seen:
    """What a card model was seen to do; None where nobody measured it. Units: TFLOP/s, GB/s."""

    name: str
    matmul: tuple[float, float] | None
    copy: tuple[float, float] | None
    all_reduce: Mapping[int, float]
    source: str


@dataclass(frozen=True)
class Gates:
    """All of it."""

    checks: Mapping[str, Gate]
    throttle: Mapping[str, str]  # reason → level
    kernel_log: tuple[Signature, ...]
    changed_pct: float
    seen: Mapping[str, Seen]


@cache
def load_gates(gates: Path = DATA / "gates.yml", seen: Path = DATA / "seen.yml") -> Gates:
    """The project's gates. Raises RigError naming file and key where the data is wrong."""
    table = schema.read(gates)
    checks = {name: _gate(name, row) for name, row in table.named_tables("checks").items()}
    reasons = table.table("throttle_reasons")
    throttle = {reason: level for level in LEVELS for reason in reasons.texts(level)}
    reasons.done()
    log = tuple(_signature(row) for row in table.tables("kernel_log"))
    diff = table.table("diff")
    changed = _number(diff, "changed_pct")
    diff.done()
    table.done()
    rows = schema.read(seen)
    cards = {key: _seen(row) for key, row in rows.named_tables("cards").items()}
    rows.done()
    return Gates(checks, throttle, log, changed, cards)


def _number(row: Table, name: str) -> float:
    value = row.raw.pop(name, None)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise row.error(f"{row.key(name)} must be a number, not {schema.shown(value)}")
    return float(value)


def _gate(name: str, row: Table) -> Gate:
    title, required, source = row.take("title", str), row.take("required", bool), row.take("source", str)
    return Gate(name, title, required, {key: _number(row, str(key)) for key in list(row.raw)}, source)


def _signature(row: Table) -> Signature:
    says, level, means = row.take("says", str), row.take("level", str), row.take("means", str)
    during = row.maybe("during", str) or level
    row.done()
    for key, given in (("level", level), ("during", during)):
        if given not in LEVELS:
            raise row.error(f"{row.key(key)} can't be {given!r}", f"it takes {', '.join(LEVELS)}")
    try:
        return Signature(re.compile(says), level, means, during)
    except re.error as error:
        raise row.error(f"{row.key('says')} is no regular expression: {error}") from None


def _seen(row: Table) -> Seen:
    name, source = row.take("name", str), row.take("source", str)
    ranges = {key: _range(row, key) for key in ("matmul", "copy")}
    reduce = row.maybe("all_reduce", dict) or {}
    for count, value in reduce.items():
        if not isinstance(count, int) or not isinstance(value, (int, float)):
            raise row.error(f"{row.key('all_reduce')} must be cards: GB/s, not {schema.shown(reduce)}")
    row.done()
    return Seen(name, ranges["matmul"], ranges["copy"], {k: float(v) for k, v in reduce.items()}, source)


def _range(row: Table, name: str) -> tuple[float, float] | None:
    values = row.maybe(name, list)
    if values is None:
        return None
    if len(values) != 2 or not all(isinstance(v, (int, float)) for v in values) or values[0] > values[1]:
        raise row.error(f"{row.key(name)} must be [least, most], not {schema.shown(values)}")
    return float(values[0]), float(values[1])


def gate(gates: Gates, name: str) -> Gate:
    """The row of a check. Raises RigError where gates.yml lacks it."""
    try:
        return gates.checks[name]
    except KeyError:
        raise RigError(f"there is no gate for the check {name!r}", "qwen_rig/data/gates.yml", "add a row") from None
