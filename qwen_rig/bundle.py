"""A bundle: a folder with all that a stack's hosts fetch, and a manifest of its files' hashes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name

from qwen_rig import atomic, hosttext
from qwen_rig.catalog.lock import Requirement
from qwen_rig.errors import RigError

FORM = 1
MANIFEST = "manifest.json"
KEYS = "keys"  # its folder of apt's keys, each named by its fingerprint
AGAIN = "make it again: qwen-rig bundle FOLDER"


@dataclass(frozen=True)
class Bundle:
    """What lies in `folder`: path below it → {sha256, bytes, from}; `stack` and `python` say what it was made for."""

    folder: Path
    stack: str
    python: str
    files: Mapping[str, Mapping[str, Any]]

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
    return _load(Path(folder).expanduser().resolve())


@cache
def _load(folder: Path) -> Bundle:
    try:
        raw = hosttext.value(json.loads((folder / MANIFEST).read_text(encoding="utf-8")))
        if raw["form"] != FORM:
            raise ValueError
        made = Bundle(folder, str(raw["stack"]), str(raw["python"]), dict(raw["files"]))
        absent = [path for path, row in made.files.items() if (folder / path).stat().st_size != row["bytes"]]
    except FileNotFoundError as error:
        missing = Path(str(error.filename or folder)).name
        raise RigError(f"the bundle has no {missing}", str(folder), AGAIN) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise RigError("is no bundle that this version can read", str(folder), AGAIN) from None
    if absent:
        raise RigError(f"{absent[0]} is not as long as it was when the bundle was made", str(folder), AGAIN)
    return made


def write(folder: Path, stack: str, python: str, files: Mapping[str, Mapping[str, Any]]) -> None:
    """Write the manifest: last of all, so that a bundle that broke off has none."""
    text = json.dumps({"form": FORM, "stack": stack, "python": python, "files": dict(sorted(files.items()))}, indent=1)
    atomic.write(folder / MANIFEST, text + "\n")
