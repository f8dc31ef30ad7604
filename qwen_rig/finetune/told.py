"""What a host tells of its runs (train_files.py, train_follow.py), read as a stranger's word: typed, bounded. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from qwen_rig import strictjson
from qwen_rig.finetune.curve import KEPT, point
from qwen_rig.finetune.record import NAME

LARGEST = 1_000_000  # letters of one answer
TRAIN, FROM, END = "@train ", "@train-from ", "@train-end "
STATES = ("finished", "stopped", "failed")
JOBS = {"running": "running", "aborted": "aborted", "none": "begun"}
RUN_ID = re.compile(r"[0-9a-f]{12}")


@dataclass(frozen=True)
class Told:
    """One run as its host tells of it. `state`: as a Record's; `job`: the id of its beginning, "" where there is none;
    `checkpoint`: the last whole one, and `files` of it or, once it has finished, of the result."""

    name: str
    state: str
    job: str = ""
    id: str = ""
    points: tuple[dict[str, Any], ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    revision: str | None = None
    end: Mapping[str, Any] = field(default_factory=dict)
    checkpoint: int | None = None
    folder: str = ""
    files: Mapping[str, Any] = field(default_factory=dict)
    merged: Mapping[str, Any] = field(default_factory=dict)
    evaluation: Mapping[str, Any] = field(default_factory=dict)


def lines(printed: Iterable[str]) -> tuple[list[dict[str, Any]], list[str]]:
    """(points, the other lines) of a job's log."""
    points, rest = [], []
    for line in printed:
        if line.startswith(TRAIN):
            if row := point(strictjson.parse(line[len(TRAIN):], 4000)[0]):
                points.append(row)
        elif not line.startswith((FROM, END)):
            rest.append(line)
    return points, rest


def runs(output: str) -> list[Told]:
    """The runs that train_files.py's `look` printed; what is none is passed over."""
    found = strictjson.mapping(output, LARGEST) or {}
    rows = found.get("runs")
    return [made for row in (rows if isinstance(rows, list) else []) if (made := _run(row)) is not None]


def _run(row: Any) -> Told | None:
    if not isinstance(row, dict) or not isinstance(row.get("name"), str) or not NAME.fullmatch(row["name"]):
        return None
    job, end, asked, begun = (_mapping(row.get(name)) for name in ("job", "end", "asked", "begun"))
    state = JOBS.get(str(job.get("state")), "")
    if not state:
        state = end["state"] if end.get("state") in STATES else "failed"
    run, id_, revision = job.get("run"), asked.get("id"), begun.get("revision")
    whole = _mapping(row.get("checkpoint"))
    step, folder = whole.get("step"), whole.get("folder")
    finished = end.get("state") == "finished"
    named = isinstance(step, int) and folder == f"checkpoint-{step}"
    points = [made for each in _list(row.get("points")) if (made := point(each))]
    return Told(
        row["name"], state, run if isinstance(run, str) and RUN_ID.fullmatch(run) else "",
        id_ if isinstance(id_, str) else "", tuple(points[:KEPT]), _mapping(row.get("settings")),
        revision if isinstance(revision, str) and re.fullmatch("[0-9a-f]{7,64}", revision) else None,
        {name: end[name] for name in ("state", "code", "step", "of", "loss", "at") if name in end},
        step if named else None, "" if finished or not named else str(folder),
        _mapping(end.get("files") if finished else whole.get("files")), _mapping(row.get("merged")),
        _mapping(row.get("evaluation")))


def _mapping(found: Any) -> dict[str, Any]:
    return found if isinstance(found, dict) else {}


def _list(found: Any) -> list[Any]:
    return found if isinstance(found, list) else []
