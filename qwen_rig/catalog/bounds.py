"""qwen_rig/data/bounds.yml, loaded and checked."""

from __future__ import annotations

from functools import cache

from qwen_rig.catalog.datafile import DATA, Row, Text, Whole, load
from qwen_rig.frozen import frozen


@frozen
class _Seconds(Row):
    seconds: Whole
    source: Text


@frozen
class _Step(Row):
    slack_seconds: Whole
    source: Text


@frozen
class _Answer(Row):
    bytes: Whole
    lines: Whole
    source: Text


@frozen
class _Log(Row):
    bytes: Whole
    source: Text


@frozen
class _File(Row):
    bytes: Whole
    grace_seconds: Whole
    least_bytes_s: Whole
    source: Text


@frozen
class _Run(Row):
    bytes: Whole
    json_bytes: Whole
    source: Text


@frozen
class Bounds(Row):
    """What a host may take and send; each number's reason stands in bounds.yml."""

    connect: _Seconds
    step: _Step
    command: _Seconds
    answer: _Answer
    log: _Log
    file: _File
    run: _Run


@cache
def load_bounds() -> Bounds:
    """The bounds. Raises RigError naming file and key where the data is wrong."""
    return load(DATA / "bounds.yml", Bounds)
