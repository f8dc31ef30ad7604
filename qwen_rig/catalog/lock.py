"""Locks as `make lock` writes them: exact versions with hashes and markers, and the bytes of each to download."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from packaging.markers import Marker
from packaging.requirements import InvalidRequirement
from packaging.requirements import Requirement as Line
from packaging.utils import canonicalize_name

from qwen_rig.catalog.yamlfile import read, shown
from qwen_rig.errors import RigError
from qwen_rig.frozen import frozen

MACHINE = "x86_64"  # the one that the locks are made for (scripts/lock.py)
HASH = re.compile(r"\s--hash=(sha256:[0-9a-f]{64})(?=\s|$)")
OPTION = re.compile(r"\s(--[\w-]+=?\w*)\S*")


@frozen
class Requirement:
    """One package as locked. `bytes` is what it takes to download, None where not known. What no lock holds
    (qwen_rig/catalog/torch_index.py) has no hashes, and no version either where any will do: ""."""

    version: str
    hashes: tuple[str, ...]
    bytes: int | None


@frozen
class Entry:
    """One line of a lock: a package, and the marker that says on which Pythons."""

    name: str
    marker: Marker | None
    requirement: Requirement


def environment(python: str) -> dict[str, str]:
    """PEP 508's environment of a host: CPython of that minor version on linux x86_64.

    The patch level is not known before the env is made; the highest there can be stands for it.
    """
    return {
        "implementation_name": "cpython", "implementation_version": f"{python}.99", "os_name": "posix",
        "platform_machine": MACHINE, "platform_python_implementation": "CPython", "platform_release": "",
        "platform_system": "Linux", "platform_version": "", "python_full_version": f"{python}.99",
        "python_version": python, "sys_platform": "linux", "extra": "",
    }


def read_lock(path: Path, sizes: Mapping[str, int]) -> tuple[Entry, ...]:
    """All entries of a lock. Raises RigError naming file, line and what is wrong there."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise RigError(f"the lock can't be read: {error.strerror}", str(path), _again(path)) from None
    except UnicodeDecodeError as error:
        raise RigError(f"the lock can't be read: no UTF-8 at byte {error.start}", str(path), _again(path)) from None
    entries, logical, start = [], "", 0
    for number, line in enumerate(text.splitlines(), 1):
        if not logical and (not line.strip() or line.lstrip().startswith("#")):
            continue
        start = start or number
        logical += line.rstrip("\\")
        if not line.endswith("\\"):
            entries.append(_entry(logical, f"{path}:{start}", sizes))
            logical, start = "", 0
    if logical:
        raise RigError("the last entry is cut off", f"{path}:{start}", _again(path))
    return tuple(entries)


def _again(path: Path) -> str:
    return f"make lock STACK={path.name.split('.')[0]}"


def _entry(text: str, where: str, sizes: Mapping[str, int]) -> Entry:
    hashes, text = tuple(HASH.findall(text)), HASH.sub("", text)
    others = OPTION.findall(text)
    try:
        line = Line(OPTION.sub("", text).strip())
    except InvalidRequirement as error:
        raise RigError(f"no requirement: {str(error).splitlines()[0]}", where, "make the lock again") from None
    pins = [spec for spec in line.specifier if spec.operator == "=="]
    if len(pins) != 1 or len(line.specifier) != 1 or line.url or pins[0].version.endswith(".*"):
        raise RigError(f"{line.name} has no exact version", where, "make the lock again")
    if others:
        raise RigError(f"{line.name} has {others[0]}, and only whole sha256 hashes are taken", where,
                       "make the lock again")
    if not hashes:
        raise RigError(f"{line.name} has no sha256 hash", where, "make the lock again")
    name, version = canonicalize_name(line.name), pins[0].version
    return Entry(name, line.marker, Requirement(version, hashes, sizes.get(f"{name}=={version}")))


def read_sizes(path: Path) -> dict[str, int]:
    """`name==version` → bytes. Raises RigError."""
    try:
        file = read(path)
    except RigError as error:
        raise RigError(f"the sizes can't be read: {error.what}", error.where, _again(path)) from None
    if not isinstance(file.data, dict):
        raise file.error("the sizes must be a mapping", (), _again(path))
    for key, value in file.data.items():
        if not isinstance(key, str) or type(value) is not int or "==" not in key:
            raise file.error(f"{shown(key)}: {shown(value)} isn't `name==version: bytes`", (key,), _again(path))
    return dict(file.data)


def lines_of(held: Mapping[str, Requirement], names: Iterable[str]) -> list[str]:
    """A line with hashes, as pip takes it, for each of these packages that the lock holds."""
    return [" ".join([f"{name}=={held[name].version}", *(f"--hash={each}" for each in held[name].hashes)])
            for name in sorted(names) if name in held]


def select(entries: tuple[Entry, ...], python: str) -> dict[str, Requirement]:
    """The packages that the lock installs on that Python, by canonical name."""
    here = environment(python)
    return {e.name: e.requirement for e in entries if e.marker is None or e.marker.evaluate(here)}
