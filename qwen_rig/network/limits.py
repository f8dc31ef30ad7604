"""qwen_rig/data/network.yml, loaded and checked."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from qwen_rig.catalog import schema
from qwen_rig.catalog.sources import DATA


@dataclass(frozen=True)
class Limits:
    """Seconds, bytes, and bytes a second, as each name says; the source of each number stands in network.yml."""

    lookup_seconds: int
    lookup_at_once: int
    lookup_keep_hours: int
    clock_refuse_s: int
    clock_say_s: int
    measure_seconds: int
    measure_largest_bytes: int
    measure_enough_bytes_s: int


@cache
def load_limits() -> Limits:
    """The limits. Raises RigError naming file and key where the data is wrong."""
    table = schema.read(DATA / "network.yml")
    lookup, clock = table.table("lookup"), table.table("clock")
    measure = table.table("measure")
    limits = Limits(
        lookup.take("seconds", int), lookup.take("at_once", int), lookup.take("keep_hours", int),
        clock.take("refuse_s", int), clock.take("say_s", int),
        measure.take("seconds", int), measure.take("largest_bytes", int), measure.take("enough_bytes_s", int))
    for block in (lookup, clock, measure):
        block.take("source", str)
        block.done()
    table.done()
    return limits
