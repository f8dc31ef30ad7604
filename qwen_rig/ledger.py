"""What this controller remembers: how each host was left by the last apply, and how long steps took.

In $XDG_STATE_HOME/qwen-rig (~/.local/state/qwen-rig), for the user alone. Nothing in it is needed: a file that is
gone or can't be read only means that no drift is told and no time is foreseen.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from qwen_rig import atomic, homes, strictjson
from qwen_rig.plan.model import Applied, Plan, Step

LARGEST = 1_000_000  # letters of one host's record: a state with all its packages has 20 thousand
KEEP = 2000  # lines of history
OF_LAST = 5  # runs that an estimate is the median of


def folder() -> Path:
    """Where it is kept."""
    return homes.state()


def _file(host: str, address: str) -> Path:
    """The same name at another address is another host."""
    return folder() / "hosts" / f"{host}-{hashlib.sha256(address.encode()).hexdigest()[:8]}.json"


def applied(host: str, address: str) -> Applied | None:
    """The record of a host, None where there is none that can be read."""
    try:
        found = strictjson.mapping(_file(host, address).read_text(encoding="utf-8"), LARGEST) or {}
    except (OSError, ValueError):
        return None
    when, snapshot = found.get("when"), found.get("snapshot")
    return Applied(when, snapshot) if isinstance(when, str) and isinstance(snapshot, dict) else None


def remember(host: str, address: str, when: str, snapshot: Mapping[str, Any]) -> str:
    """Put a host's state on record. A disk that takes none is no reason to fail a run: why it doesn't, "" where it
    does."""
    return _write(_file(host, address), json.dumps({"host": host, "when": when, "snapshot": snapshot}, indent=1) + "\n")


def forget(host: str, address: str) -> str:
    """Drop a host's record: a run broke off on it, and what it left half-done must not be called drift. Why it can't
    be dropped, "" where it is."""
    path = _file(host, address)
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        return _why(path, error)
    return ""


def _write(path: Path, text: str) -> str:
    """For the user alone; why the disk takes it not, "" where it does."""
    try:
        atomic.write(path, text, 0o600, 0o700)
    except OSError as error:
        return _why(path, error)
    return ""


def _why(path: Path, error: OSError) -> str:
    return f"{path}: {error.strerror or error}"


def key(step: Step, kind: str, stack: str) -> str:
    """What makes two runs of a step alike: what is done (an env built or mended), on what kind of host, for which
    stack."""
    mode = step.payload.mode if step.payload else "-"
    return " ".join((step.component, mode, kind, stack))


def timed(rows: Iterable[tuple[str, float]]) -> str:
    """Add what steps took, as `(key(), seconds)`: behind what is there, which another run may add to at this moment.
    Why it can't be added, "" where it is."""
    text = "".join(json.dumps([name, round(seconds, 1)]) + "\n" for name, seconds in rows)
    path, lines = folder() / "history.jsonl", _history()
    if len(lines) > 2 * KEEP or path.is_dir():
        return _write(path, "\n".join(lines[-KEEP:]) + "\n" + text)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with open(os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600), "rb+", buffering=0) as file:
            cut = file.seek(0, os.SEEK_END) and (file.seek(-1, os.SEEK_END), file.read(1))[1] != b"\n"
            file.write((b"\n" if cut else b"") + text.encode())
    except OSError as error:
        return _why(path, error)
    return ""


def _history() -> list[str]:
    try:
        return (folder() / "history.jsonl").read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return []


def estimated(plan: Plan, kind: str, stack: str) -> Plan:
    """The plan with each change's `seconds`: the median of its last recorded runs, None where there are none."""
    if not plan.changes:
        return plan
    seen: dict[str, list[float]] = {}
    for line in _history():
        row, _ = strictjson.parse(line)
        if isinstance(row, list) and len(row) == 2 and isinstance(row[0], str) and type(row[1]) in (int, float):
            seen.setdefault(row[0], []).append(float(row[1]))
    steps = []
    for step in plan.steps:
        runs = seen.get(key(step, kind, stack), [])[-OF_LAST:] if step.action.changes else []
        steps.append(replace(step, seconds=median(runs)) if runs else step)
    return replace(plan, steps=tuple(steps))
