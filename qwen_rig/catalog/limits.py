"""qwen_rig/data/network.yml, loaded and checked."""

from __future__ import annotations

from functools import cache

from qwen_rig.catalog.datafile import DATA, Row, Text, Whole, load
from qwen_rig.frozen import frozen


@frozen
class _Lookup(Row):
    seconds: Whole
    at_once: Whole
    keep_hours: Whole
    source: Text


@frozen
class _Clock(Row):
    refuse_s: Whole
    say_s: Whole
    source: Text


@frozen
class _Measure(Row):
    seconds: Whole
    largest_bytes: Whole
    enough_bytes_s: Whole
    source: Text


@frozen
class _Serve(Row):
    connections: Whole
    begin_s: Whole
    idle_s: Whole
    run_files: Whole
    run_bytes: Whole
    free_bytes: Whole
    largest_deb: Whole
    largest_index: Whole
    source: Text


@frozen
class LimitsFile(Row):
    """The form of network.yml."""

    lookup: _Lookup
    clock: _Clock
    measure: _Measure
    serve: _Serve


@frozen
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
    serve_connections: int
    serve_begin_s: int
    serve_idle_s: int
    serve_run_files: int
    serve_run_bytes: int
    serve_free_bytes: int
    serve_largest_deb: int
    serve_largest_index: int


@cache
def load_limits() -> Limits:
    """The limits. Raises RigError naming file and key where the data is wrong."""
    file = load(DATA / "network.yml", LimitsFile)
    lookup, clock, measure, serve = file.lookup, file.clock, file.measure, file.serve
    return Limits(lookup.seconds, lookup.at_once, lookup.keep_hours, clock.refuse_s, clock.say_s,
                  measure.seconds, measure.largest_bytes, measure.enough_bytes_s,
                  serve.connections, serve.begin_s, serve.idle_s, serve.run_files, serve.run_bytes, serve.free_bytes,
                  serve.largest_deb, serve.largest_index)
