"""A data set on this machine: whether train_qwen.py can read it, its sha256, and under what name it goes to a host."""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from qwen_rig import homes
from qwen_rig.errors import RigError
from qwen_rig.frozen import frozen
from qwen_rig.host import train_qwen as _train_qwen

train_qwen: Any = _train_qwen  # written for a host's Python, without types
HUB = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,95}/[A-Za-z0-9_][A-Za-z0-9_.-]{0,95}")
FORMS = (("messages",), ("prompt", "completion"), ("text",))
PARQUET = b"PAR1"  # a Parquet file's first and last bytes (parquet-format, File Format)
LONGEST = 64 << 20  # letters of one sample


@frozen
class Data:
    """What a run learns from. `file`: on this machine, None where `name` is one of the hub or a path on the host;
    `samples`: None where they aren't counted here."""

    name: str
    file: Path | None = None
    sha256: str | None = None
    bytes: int = 0
    samples: int | None = None

    @property
    def there(self) -> str | None:
        """Its name on a host, by its content; None where nothing is sent."""
        return f"{self.sha256}{self.file.suffix}" if self.file and self.sha256 else None


def looked_at(name: str, on_host: bool = False) -> Data:
    """The data set of that name. Raises RigError where it can't be read, or is of no known form."""
    if on_host:
        return Data(name)
    file = homes.expanded(name, "--dataset_name")
    if file.is_dir():
        raise RigError("a folder of data isn't sent", str(file), "name one file: " + ", ".join(train_qwen.KINDS))
    if not file.exists():
        if HUB.fullmatch(name) and file.suffix not in train_qwen.KINDS:
            return Data(name)
        raise RigError("there is no such data file", name, "name a file here, or a data set of the hub: OWNER/NAME")
    if file.suffix not in train_qwen.KINDS:
        raise RigError(f"data of no kind that is read: {file.suffix or 'no ending'}", str(file),
                       f"it takes {', '.join(train_qwen.KINDS)}")
    try:
        samples, size = _samples(file), file.stat().st_size
        with file.open("rb") as opened:
            digest = hashlib.file_digest(opened, "sha256").hexdigest() if hasattr(hashlib, "file_digest") \
                else _sha256(opened)
    except OSError as error:
        raise RigError(f"the data can't be read: {error.strerror}", str(file)) from None
    return Data(name, file.absolute(), digest, size, samples)


def _sha256(opened: Any) -> str:
    digest = hashlib.sha256()
    for chunk in iter(lambda: opened.read(1 << 20), b""):
        digest.update(chunk)
    return digest.hexdigest()


def _samples(file: Path) -> int | None:
    """How many samples it holds, each looked at; None of Parquet, whose ends alone are."""
    if not file.stat().st_size:
        raise RigError("the data file is empty", str(file))
    if file.suffix == ".parquet":
        with file.open("rb") as opened:
            first = opened.read(4)
            opened.seek(-4, 2)
            if (first, opened.read(4)) != (PARQUET, PARQUET):
                raise RigError("this is not a complete Parquet file", str(file))
        return None
    rows: dict[str, Callable[[Path], Iterator[tuple[str, Any]]]] = {".jsonl": _lines, ".json": _json, ".csv": _csv}
    form: tuple[str, ...] | None = None
    count = 0
    for where, row in rows[file.suffix](file):
        if not isinstance(row, dict):
            raise RigError("a sample is one JSON object", where, f"like {train_qwen.example(FORMS[0])}")
        form = form or next((each for each in FORMS if set(each) <= set(row)), None)
        if form is None:
            raise RigError(f"it has the columns {', '.join(map(str, list(row)[:6])) or 'none'}", where,
                           "it takes messages, or prompt and completion, or text")
        if not all(row.get(name) and train_qwen.sound(name, row[name]) for name in form):
            raise RigError("this sample is wrong", where, f"like {train_qwen.example(form)}")
        count += 1
    if not count:
        raise RigError("the data file holds no samples", str(file))
    return count


def _lines(file: Path) -> Iterator[tuple[str, Any]]:
    with file.open(encoding="utf-8", errors="surrogateescape") as lines:
        for number in range(1, 10 ** 12):
            if not (line := lines.readline(LONGEST)):
                return
            if line.strip():
                yield f"{file}:{number}", _parsed(line, f"{file}:{number}")


def _parsed(text: str, where: str) -> Any:
    try:
        text.encode()
        return json.loads(text)
    except UnicodeError:
        raise RigError("it isn't UTF-8", where, "save it as UTF-8") from None
    except RecursionError:
        raise RigError("it is nested too deep", where) from None
    except ValueError as error:
        raise RigError(f"it can't be read as JSON: {' '.join(str(error).split())[:120]}", where) from None


def _json(file: Path) -> Iterator[tuple[str, Any]]:
    """A list of objects, or objects line by line, as datasets reads both."""
    with file.open(encoding="utf-8", errors="surrogateescape") as opened:
        first = opened.read(1000).lstrip("\ufeff \t\r\n")[:1]
    if first != "[":
        yield from _lines(file)
        return
    if file.stat().st_size > LONGEST:
        raise RigError("one JSON list of that size isn't read", str(file), "write it as .jsonl, a sample a line")
    found = _parsed(file.read_text(encoding="utf-8", errors="surrogateescape"), str(file))
    yield from ((f"{file}: sample {number}", row) for number, row in enumerate(found, 1))


def _csv(file: Path) -> Iterator[tuple[str, Any]]:
    with file.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as opened:
        try:
            for number, row in enumerate(csv.DictReader(opened), 2):
                yield f"{file}: row {number}", row
        except csv.Error as error:
            raise RigError(f"it can't be read as CSV: {error}", str(file)) from None
