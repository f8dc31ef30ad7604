"""What is kept here of a run, $XDG_STATE_HOME/qwen-rig/runs/NAME.json: what was asked for, of which host, what came."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Mapping
from dataclasses import asdict, field, fields, replace
from pathlib import Path
from typing import Any

from qwen_rig import atomic, homes, strictjson
from qwen_rig.errors import RigError
from qwen_rig.finetune import curve
from qwen_rig.frozen import frozen

NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?")
LARGEST = 2_000_000  # letters
PART = ("folder", "env", "there", "busy", "address", "turn")  # of a run's crew, what each host has
OPEN = ("begun", "running", "stopped", "aborted", "failed", "lost")  # states from which something may still come


@frozen
class Record:
    """One run. `host`, `inventory`, `knobs`: the host that it runs on, as the command line named it; `folder`: its
    folder there; `env`: the env's path, `lock_sha256` and `stack`; `options`: as they were given; `settings`: their
    result; `points`: the loss curve, rows as train_follow.py writes them; `result`: how it ended, with the files'
    sha256. `crew`: of a run over several hosts each one's folder, env, data, address and beginning, `host` the first.

    `state`: begun, running, stopped, finished, failed, aborted (its host was rebooted, or somebody killed it).
    """

    name: str
    id: str
    host: str
    inventory: str
    folder: str
    began: str
    knobs: tuple[str, ...] = ()
    identity: str = ""
    env: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 42
    model: str = ""
    revision: str | None = None
    certificates: tuple[str, ...] = ()
    state: str = "begun"
    job: str = ""
    seen: str = ""
    points: tuple[Mapping[str, Any], ...] = ()
    result: Mapping[str, Any] = field(default_factory=dict)
    evaluation: Mapping[str, Any] = field(default_factory=dict)
    crew: Mapping[str, Any] = field(default_factory=dict)

    @property
    def hosts(self) -> tuple[str, ...]:
        """All hosts that it runs on; the first has progress, checkpoints and adapter."""
        return tuple(self.crew) or (self.host,)

    @property
    def last(self) -> Mapping[str, Any]:
        """The last point of the curve."""
        return self.points[-1] if self.points else {}


def checked(name: str, where: str = "NAME") -> str:
    """A run's name. Raises RigError where it can't be one."""
    if not NAME.fullmatch(name):
        raise RigError(f"a run can't be called {name[:60]!r}", where, "a-z, 0-9 and - between, 40 letters at most")
    return name


def folder() -> Path:
    """Where the records are."""
    return homes.state() / "runs"


def free(model: str, data: str) -> str:
    """A name for a run of that model by those data that none has yet: qwen3-8b-chats, qwen3-8b-chats-2."""
    parts = (model.rpartition("/")[2], Path(data).stem)
    plain = "-".join(re.sub(r"[^a-z0-9]+", "-", part.lower()).strip("-")[:17].strip("-") for part in parts)
    base = plain.strip("-") or "run"
    return next(name for n in range(1, 10_000) if not path(name := base if n == 1 else f"{base}-{n}").exists())


def path(name: str) -> Path:
    """The file of a run."""
    return folder() / f"{checked(name)}.json"


def new_id() -> str:
    """Who began a run: no two are the same."""
    return uuid.uuid4().hex


def keep(record: Record, new: bool = False) -> Record:
    """Write it down, for the user alone. Raises RigError where the disk takes none, or (`new`) the name is taken."""
    target = path(record.name)
    if new and target.exists():
        raise taken(record.name)
    try:
        atomic.write(target, json.dumps(asdict(record), indent=1) + "\n", 0o600, 0o700)
    except OSError as error:
        raise RigError(f"the run's record can't be kept: {error.strerror}", str(target),
                       "set XDG_STATE_HOME to a folder that can be written") from None
    return record


def taken(name: str) -> RigError:
    """What to say of a name that a run has."""
    return RigError(f"a run {name} exists already, and each run has its own name", "--name",
                    f"qwen-rig runs attach {name}, or runs resume {name}, or another --name")


def load(name: str) -> Record:
    """The run of that name. Raises RigError where there is none."""
    file = path(name)
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        known = ", ".join(each.name for each in every()) or "none yet"
        raise RigError(f"there is no run {name}", "", f"there are: {known}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise RigError(f"the run's record can't be read: {error}", str(file)) from None
    record = of(strictjson.mapping(text, LARGEST))
    if record is None or record.name != name:
        raise RigError("this file is not the record of a run", str(file), "remove it, or put it right")
    return record


def every() -> list[Record]:
    """All runs that are on record here, the newest first; what is none is passed over."""
    found = []
    for file in folder().glob("*.json") if folder().is_dir() else ():
        try:
            record = of(strictjson.mapping(file.read_text(encoding="utf-8"), LARGEST))
        except (OSError, UnicodeDecodeError):
            continue
        if record is not None and f"{record.name}.json" == file.name:
            found.append(record)
    return sorted(found, key=lambda record: record.began, reverse=True)


def of(found: Mapping[str, Any] | None) -> Record | None:
    """A record out of JSON; None where it is none."""
    kinds: dict[str, Any] = {"tuple": list, "Mappi": dict, "str": str, "str |": (str, type(None)), "int": int}
    if found is None:
        return None
    for one in fields(Record):
        kind = next(value for key, value in reversed(kinds.items()) if str(one.type).startswith(key))
        if one.name in found and not isinstance(found[one.name], kind):
            return None
    known: dict[str, Any] = {one.name: found[one.name] for one in fields(Record) if one.name in found}
    if not {"name", "id", "host", "inventory", "folder", "began"} <= set(known) or not NAME.fullmatch(known["name"]):
        return None
    texts = all(isinstance(each, str) for name in ("knobs", "certificates") for each in known.get(name, ()))
    parts = known.get("crew", {})
    texts = texts and all(isinstance(part, dict) and set(PART) <= {name for name in part if isinstance(part[name], str)}
                          for part in parts.values()) and (not parts or next(iter(parts)) == known["host"])
    rows = tuple(row for each in known.get("points", ()) if (row := curve.point(each)))
    for name in ("knobs", "certificates"):
        known[name] = tuple(known.get(name, ()))
    known["points"] = rows
    return Record(**known) if texts else None


def changed(record: Record, **more: Any) -> Record:
    """The record with that, written down."""
    made = replace(record, **more)
    return keep(made) if made != record else made
