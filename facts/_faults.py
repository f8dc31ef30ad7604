"""What doesn't validate in a host's plain data: where it stands, how it is cut out, how it is called. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic_core import ValidationError

At = tuple[int | str, ...]


def faults(raw: dict[str, Any], wrong: ValidationError) -> list[tuple[At, str]]:
    """What must be left out, and why: later rows before earlier ones, so that the places hold while rows are cut."""
    found: dict[At, str] = {}
    for each in wrong.errors(include_url=False, include_context=False, include_input=False):
        found.setdefault(_there(raw, each["loc"]), each["msg"])
    places = sorted(found, key=lambda at: [(isinstance(key, str), key if isinstance(key, int) else 0, str(key))
                                           for key in at], reverse=True)
    return [(at, found[at]) for at in places if not any(at[:n] in found for n in range(1, len(at)))]


def _there(raw: Any, at: At) -> At:
    """The part of a place that can be cut: as far as it is there, and of a record the whole record."""
    if at[:1] == ("generations",) and at[2:3] == ("records",):
        at = at[:4]
    for depth, key in enumerate(at):
        holds = key in raw if isinstance(raw, dict) else (isinstance(raw, list) and isinstance(key, int)
                                                          and key < len(raw))
        if not holds:
            return at[:max(1, depth)]
        raw = raw[key]
    return at


def cut(raw: Any, at: At) -> None:
    """Take that place out. Without the record of its build, it isn't known that a generation is complete."""
    outer = raw
    for key in at[:-1]:
        outer, raw = raw, raw[key]
    del raw[at[-1]]
    if at[2:] == ("records", "env"):
        outer["complete"] = False


def place_of(raw: Mapping[str, Any], at: At) -> str:
    """The place for people: a record by its file."""
    if at[:1] == ("generations",) and at[2:3] == ("records",) and len(at) == 4:
        generation, record = raw["generations"][at[1]], raw["generations"][at[1]]["records"].get(at[3])
        file = record.get("file") if isinstance(record, dict) else None  # facts/_conda.py says it of a former name
        return f"{generation.get('path')}/.rig/{file or f'{at[3]}.json'}"
    return ".".join(map(str, at))
