"""A bundle: a folder with all that a stack's hosts fetch, and a manifest of its files' hashes."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, TypedDict

from packaging.utils import canonicalize_name

from qwen_rig import atomic, homes, inside
from qwen_rig.catalog.lock import Requirement
from qwen_rig.errors import RigError
from qwen_rig.frozen import frozen

FORM = 1
MANIFEST = "manifest.json"
KEYS = "keys"  # its folder of apt's keys, each named by its fingerprint
AGAIN = "make it again: qwen-rig bundle FOLDER"
# The paths that a bundle may hold: plain names, so that none means another file on any file system.
PATH = re.compile(r"(wheels|miniforge|keys|conda/(linux-64|noarch)|flash-attn/v[A-Za-z0-9.+_-]{1,60})"
                  r"/[A-Za-z0-9_][A-Za-z0-9._+!~=-]{0,240}")
LONGEST_MANIFEST, LARGEST_FILE, MOST_FILES = 16 << 20, 8 << 30, 20_000


class Wrong(ValueError):
    """What is wrong with a manifest, for people."""


class Row(TypedDict):
    """A manifest's word on a file."""

    sha256: str
    bytes: int


@frozen
class Bundle:
    """What lies in `folder`: path below it → its hash and size; `stack`, its lock's hash (None: made by 0.2.0 or
    before) and `python` say what it was made for."""

    folder: Path
    stack: str
    python: str
    files: Mapping[str, Row]
    lock_sha256: str | None = None

    def check(self, stack: str, lock_sha256: str, python: str) -> None:
        """Raises RigError where it was made for another stack, lock or Python than these."""
        again = f"qwen-rig bundle {self.folder} --data stack={stack} --data python={python}"
        if (self.stack, self.python) != (stack, python):
            raise RigError(f"the bundle {self.folder} is of stack {self.stack} for Python {self.python}, and {stack} "
                           f"for {python} is wanted", "bundle", again)
        if self.lock_sha256 not in (None, lock_sha256):
            raise RigError(f"the bundle {self.folder} was made from another lock of stack {stack} than this one",
                           "bundle", again)

    def lacking(self, wanted: Mapping[str, Requirement]) -> list[str]:
        """The packages of which no locked file is here, as `name version`."""
        here = {f"sha256:{row['sha256']}" for path, row in self.files.items() if path.startswith("wheels/")}
        return [f"{name} {found.version}" for name, found in sorted(wanted.items()) if not here & set(found.hashes)]

    def projects(self) -> dict[str, list[str]]:
        """Project → the names of its wheels and source archives."""
        found: dict[str, list[str]] = {}
        for path in sorted(self.files):
            folder, _, name = path.partition("/")
            if folder == "wheels":
                found.setdefault(canonicalize_name(name.split("-")[0]) if name.endswith(".whl")
                                 else canonicalize_name(name.rpartition("-")[0]), []).append(name)
        return found


def load(folder: str) -> Bundle:
    """The bundle in a folder. Raises RigError, one line, where there is none that can be used."""
    return _load(_resolved(folder))


def _resolved(folder: str) -> Path:
    try:
        return homes.expanded(folder).resolve()
    except (OSError, RuntimeError) as error:  # a circle of links
        raise RigError(f"can't be read: {error}", folder, "name the folder of a bundle") from None


@cache
def _load(folder: Path) -> Bundle:
    try:
        with inside.opened(folder, MANIFEST) as file:
            text = file.read(LONGEST_MANIFEST + 1)
        made = _read(folder, text)
        for path, row in made.files.items():
            with inside.opened(folder, path) as file:
                if os.fstat(file.fileno()).st_size != row["bytes"]:
                    raise Wrong(f"{path} is not as long as it was when the bundle was made")
    except FileNotFoundError as error:
        missing = Path(str(error.filename or folder)).name
        raise RigError(f"the bundle has no {missing}", str(folder), AGAIN) from None
    except (Wrong, inside.Refused) as error:
        raise RigError(str(error), str(folder), AGAIN) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise RigError("is no bundle that this version can read", str(folder), AGAIN) from None
    return made


def _read(folder: Path, text: bytes) -> Bundle:
    """The bundle that a manifest tells of. Raises ValueError, KeyError or TypeError where the text is no
    manifest, and Wrong with the reason."""
    if len(text) > LONGEST_MANIFEST:
        raise Wrong("its manifest is longer than any bundle's")
    raw = json.loads(text.decode("utf-8"), object_pairs_hook=_once)
    rows, lock = dict(raw["files"]), raw.get("lock_sha256")
    if raw["form"] != FORM or not (lock is None or _is_sha256(lock)) or len(rows) > MOST_FILES:
        raise ValueError
    if not all(isinstance(raw[name], str) and raw[name].isprintable() for name in ("stack", "python")):
        raise ValueError
    for path in rows:
        if not PATH.fullmatch(path):
            raise Wrong(f"its manifest names {ascii(path)[:80]}, which is no path of a bundle")
    files = {path: _row(path, row) for path, row in rows.items()}
    return Bundle(folder, raw["stack"], raw["python"], files, lock)


def _row(path: str, row: Any) -> Row:
    size, sha256 = row["bytes"], row["sha256"]
    if not _is_sha256(sha256) or type(size) is not int or not 0 <= size <= LARGEST_FILE:
        raise Wrong(f"its manifest gives {path} no sha256 or size that can be")
    return Row(sha256=sha256, bytes=size)


def _is_sha256(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None


def _once(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, each of whose names stands once."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise Wrong(f"its manifest has {ascii(name)[:80]} twice")
        found[name] = value
    return found


def write(folder: Path, stack: str, python: str, files: Mapping[str, Mapping[str, Any]],
          lock_sha256: str | None = None) -> None:
    """Write the manifest: last of all, so that a bundle that broke off has none. `files`: path → sha256, bytes and
    where it is from. Raises inside.Refused where something that is no file of its own has the manifest's name."""
    text = json.dumps({"form": FORM, "stack": stack, "python": python, "lock_sha256": lock_sha256,
                       "files": dict(sorted(files.items()))}, indent=1)
    atomic.write(inside.room(folder, MANIFEST), text + "\n")
