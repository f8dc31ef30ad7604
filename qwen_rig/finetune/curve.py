"""A loss curve: rows of known numbers, one a step. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

KEPT = 500  # points
MOST = 10 ** 12
NUMBERS = ("step", "of", "at", "loss", "eval_loss", "tokens_s", "left_s", "memory_mib", "memory_of")


def point(found: Any) -> dict[str, Any] | None:
    """One row of a curve: known numbers, finite and in bounds; None where it has no step."""
    if not isinstance(found, dict):
        return None
    row = {name: found[name] for name in NUMBERS
           if isinstance(found.get(name), (int, float)) and not isinstance(found[name], bool)
           and math.isfinite(found[name]) and abs(found[name]) < MOST}
    return row if isinstance(row.get("step"), int) and row["step"] >= 0 else None


def merged(points: Iterable[Mapping[str, Any]], more: Iterable[Mapping[str, Any]]) -> tuple[Mapping[str, Any], ...]:
    """One curve of two: a step that comes again was done again, from a checkpoint before it."""
    found: dict[int, Mapping[str, Any]] = {int(row["step"]): row for row in points}
    for row in more:
        step = int(row["step"])
        if step in found and found[step] != row:
            found = {each: old for each, old in found.items() if each < step}
        found[step] = row
    rows = [found[step] for step in sorted(found)]
    while len(rows) > KEPT:  # each other one: the whole curve stays, from its first step to its last
        rows = [*rows[:-1:2], rows[-1]]
    return tuple(rows)
