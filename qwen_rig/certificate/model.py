"""A certificate: what one card was, did and was judged on one day. JSON by docs/certificate.schema.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, field
from math import isfinite
from pathlib import Path
from typing import Any

from qwen_rig import strictjson
from qwen_rig.domain import Identity
from qwen_rig.errors import RigError
from qwen_rig.frozen import frozen

FORMAT = 1
LARGEST = 8_000_000  # letters of a file; 16 cards' measurements are under one million
LAST_MOMENT = 253402300799  # the end of the year 9999
STATES = ("pass", "warn", "fail", "not_run")
OVERALL = ("pass", "warn", "fail", "partial")


PEERS, PEERS_OFF = "NCCL peer-to-peer", "off: it fails"  # a fact of the all-reduce, where that works without alone


@frozen
class Number:
    """A measured number that two certificates can be compared by. `better`: higher, lower or neither."""

    label: str
    value: float
    unit: str
    better: str = "higher"


@frozen
class Check:
    """One check as it reads aloud: what was measured, what was expected, by which source, and why it isn't a pass.

    `facts` are properties whose change is worth telling (PCIe width, driver); `series` are points to plot.
    """

    name: str
    title: str
    status: str
    measured: str = ""
    expected: str = ""
    source: str = ""
    why: str = ""
    numbers: tuple[Number, ...] = ()
    facts: Mapping[str, str] = field(default_factory=dict)
    series: Mapping[str, list[list[float]]] = field(default_factory=dict)


@frozen
class Certificate:
    """One card's. `uuid` None: of a host without a card, kept nowhere. `began`: seconds since 1970. `host`: its name in
    the inventory, `host_key` the key that it had there (None: none is known); `stated`: that name is the measurements'
    own word, which nobody vouches for."""

    uuid: str | None
    name: str
    host: str
    began: int
    seconds: float
    overall: str
    emulated: bool
    environment: Mapping[str, str | None]  # driver, cuda, lock: the triple; and what stands around it
    checks: tuple[Check, ...]
    format: int = FORMAT
    host_key: str | None = None
    stated: bool = False

    @property
    def identity(self) -> Identity:
        """The host that it was taken of."""
        return Identity(self.host, self.host_key)

    def check(self, name: str) -> Check | None:
        """The check of that name, None where there is none."""
        return next((check for check in self.checks if check.name == name), None)

    def of(self, status: str) -> tuple[Check, ...]:
        """All checks that ended so."""
        return tuple(check for check in self.checks if check.status == status)

    def to_json(self) -> dict[str, Any]:
        """Plain data, as the schema has it."""
        return {"kind": "qwen-rig certificate", **asdict(self)}


def from_json(raw: Any, where: str) -> Certificate:
    """A certificate out of plain data. Raises RigError, one line, where it is none."""
    damaged = RigError("this file is not a certificate, or it is damaged", where, "take a new one: qwen-rig certify")
    try:
        if raw["kind"] != "qwen-rig certificate" or raw["overall"] not in OVERALL:
            raise damaged
        if raw["format"] != FORMAT:
            raise RigError(f"this certificate has format {raw['format']}, and this qwen-rig reads {FORMAT}", where,
                           "take a new one: qwen-rig certify")
        checks = tuple(_check(row) for row in raw["checks"])
        environment = {str(name): None if said is None else str(said) for name, said in raw["environment"].items()}
        return Certificate(
            uuid=None if raw["uuid"] is None else str(raw["uuid"]), name=str(raw["name"]), host=str(raw["host"]),
            began=moment(raw["began"]), seconds=duration(raw["seconds"]), overall=raw["overall"],
            emulated=bool(raw["emulated"]), environment=environment, checks=checks,
            host_key=None if raw.get("host_key") is None else str(raw["host_key"]), stated=bool(raw.get("stated")))
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, ArithmeticError):
        raise damaged from None


def moment(raw: Any) -> int:
    """Seconds since 1970 that a calendar has a day for. Raises ValueError, TypeError or OverflowError."""
    if not 0 <= (began := int(raw)) <= LAST_MOMENT:
        raise ValueError(f"there is no day {raw} s after 1970")
    return began


def duration(raw: Any) -> float:
    """Seconds that something can have taken. Raises ValueError or TypeError."""
    if not isfinite(seconds := float(raw)):
        raise ValueError(f"{raw} s is no time")
    return seconds


def _check(row: Mapping[str, Any]) -> Check:
    if row["status"] not in STATES:
        raise ValueError(row["status"])
    numbers = tuple(Number(str(n["label"]), float(n["value"]), str(n["unit"]), str(n["better"]))
                    for n in row["numbers"] if isfinite(float(n["value"])))
    series = {str(name): finite([(float(x), float(y)) for x, y in points]) for name, points in row["series"].items()}
    return Check(str(row["name"]), str(row["title"]), row["status"], str(row["measured"]), str(row["expected"]),
                 str(row["source"]), str(row["why"]), numbers,
                 {str(name): str(said) for name, said in row["facts"].items()}, series)


def finite(points: Sequence[Sequence[float]]) -> list[list[float]]:
    """Those points that can be plotted, and written as JSON, which has neither NaN nor infinity."""
    return [[x, y] for x, y in points if isfinite(x) and isfinite(y)]


def load(path: Path) -> Certificate:
    """The certificate in a file. Raises RigError where it can't be read or is none."""
    return from_json(read_json(path, "name a certificate: qwen-rig certificate list"), str(path))


def read_json(path: Path, remedy: str) -> Any:
    """What a JSON file holds. Raises RigError."""
    try:
        found, why = strictjson.parse(path.read_text(encoding="utf-8"), LARGEST, measured=True)
    except OSError as error:
        raise RigError(f"can't be read: {error.strerror}", str(path), remedy) from None
    except ValueError:
        found, why = None, "no UTF-8"
    if why:
        raise RigError(f"is no JSON, or a damaged file ({why})", str(path), remedy)
    return found
