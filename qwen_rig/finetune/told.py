"""What a host tells of its runs (train_files.py, train_follow.py), read as a stranger's word: typed, bounded. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import field
from typing import Any

from qwen_rig import strictjson
from qwen_rig.finetune import options
from qwen_rig.finetune.curve import KEPT, MOST, point
from qwen_rig.finetune.fetched import MOST_FILES
from qwen_rig.finetune.record import NAME
from qwen_rig.frozen import frozen

LARGEST = 1_000_000  # letters of one answer
TRAIN, FROM, END = "@train ", "@train-from ", "@train-end "
STATES = ("finished", "stopped", "failed")
JOBS = {"running": "running", "aborted": "aborted", "none": "begun"}
RUN_ID = re.compile(r"[0-9a-f]{12}")


@frozen
class Told:
    """One run as its host tells of it. `state`: as a Record's; `job`: the id of its beginning, "" where there is none;
    `checkpoint`: the last whole one, and `files` of it or, once it has finished, of the result; `checkpoints`: the
    steps of all that are whole."""

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
    checkpoints: tuple[int, ...] = ()


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
    named = type(step) is int and folder == f"checkpoint-{step}"
    points = [made for each in _list(row.get("points")) if (made := point(each))]
    return Told(
        row["name"], state, run if isinstance(run, str) and RUN_ID.fullmatch(run) else "",
        id_ if isinstance(id_, str) else "", tuple(points[:KEPT]), options.typed(_mapping(row.get("settings"))),
        revision if isinstance(revision, str) and re.fullmatch("[0-9a-f]{7,64}", revision) else None,
        {"state": end["state"], **_numbers(end)} if end.get("state") in STATES else {},
        step if named else None, "" if finished or not named else str(folder),
        _mapping(end.get("files") if finished else whole.get("files")), _mapping(row.get("merged")),
        _mapping(row.get("evaluation")), tuple(each for each in _list(row.get("checkpoints"))[:100]
                                               if type(each) is int and 0 <= each < 10 ** 9))


def _numbers(end: Mapping[str, Any]) -> dict[str, Any]:
    """How a run ended, in numbers: whole ones but for the loss."""
    whole = {name: end[name] for name in ("code", "step", "of", "at") if type(end.get(name)) is int
             and abs(end[name]) < MOST}
    loss: Any = end.get("loss")
    return {**whole, "loss": loss} if type(loss) in (int, float) and abs(loss) < MOST else whole


def files(found: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Those files of a host's list that a record can have: name → bytes and sha256. What may be fetched is decided in
    fetched.py."""
    rows = {name: row for name, row in list(found.items())[:MOST_FILES] if isinstance(row, dict)}
    return {name: {"bytes": row["bytes"], "sha256": row["sha256"]} for name, row in rows.items()
            if len(name) <= 200 and type(row.get("bytes")) is int and 0 <= row["bytes"] < 10 ** 15
            and isinstance(row.get("sha256"), str) and re.fullmatch("[0-9a-f]{64}", row["sha256"])}


def _mapping(found: Any) -> dict[str, Any]:
    return found if isinstance(found, dict) else {}


def _list(found: Any) -> list[Any]:
    return found if isinstance(found, list) else []
