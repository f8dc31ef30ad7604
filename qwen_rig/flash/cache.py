"""Wheels that hosts of this controller built: $XDG_CACHE_HOME/qwen-rig/flash-attn/DOMAIN/KEY/, for later hosts of that
trust domain and no others.

A folder holds SHA/WHEEL and record.json, which is written last and names the wheel by its sha256: what is half there
is as good as absent. The whole folder may be deleted at any time. Wheels of 0.2.0, one folder higher, have no domain:
nobody gets them.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from packaging.version import Version

from qwen_rig import atomic, homes, strictjson
from qwen_rig.domain import Domain
from qwen_rig.flash.key import Key, Known
from qwen_rig.frozen import frozen


@frozen
class Cached:
    """A wheel here, its bytes checked against `sha256`. `record`: how it was built, plain data."""

    key: Key
    path: Path
    sha256: str
    record: Mapping[str, Any]


def folder(domain: Domain) -> Path:
    """Where those of one domain are kept."""
    return homes.cache() / "flash-attn" / domain.id


def sha256_of(path: Path) -> str:
    """Of a file's bytes. Raises OSError."""
    found = path.stat()
    return _sha256(path, found.st_size, found.st_mtime_ns, found.st_ino)


@lru_cache(maxsize=64)  # eight hosts ask for the same wheel: read it once
def _sha256(path: Path, size: int, modified: int, inode: int) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def find(domain: Domain, key: Key, say: Callable[[str], None] | None = None,
         but: Collection[str] = ()) -> Cached | None:
    """A wheel of that domain that serves this key (Key.serves), its bytes checked now. The nearest glibc's is
    preferred, then the one with the fewest architectures.

    A damaged one is not used, and `say` is told of it. `but`: the sha256 of wheels that failed before.
    """
    found = []
    for record in _records(domain):
        try:
            cached = _read(record)
        except (OSError, ValueError, KeyError, TypeError) as error:
            if say and record.parent.name == key.name:
                say(f"the record of the wheel built before can't be read ({type(error).__name__}): {record}")
            continue
        if cached.key.serves(key) and cached.sha256 not in but:
            found.append(cached)
    found.sort(key=lambda cached: (Version(cached.key.glibc), -len(cached.key.archs)), reverse=True)
    for cached in found:
        why = _damage(cached)
        if why is None:
            return cached
        if say:
            say(f"the wheel built before is not used: {why} · {cached.path}")
    return None


def known(domain: Domain) -> tuple[Known, ...]:
    """Every wheel of that domain that has a record here; the wheels themselves aren't looked at."""
    found = []
    for record in _records(domain):
        with suppress(OSError, ValueError, KeyError, TypeError):
            cached = _read(record)
            found.append(Known(cached.key, cached.sha256, str(cached.record.get("host", ""))))
    return tuple(found)


def _records(domain: Domain) -> list[Path]:
    return sorted(folder(domain).glob("*/record.json"))


def _read(record: Path) -> Cached:
    """Raises OSError, ValueError, KeyError or TypeError where it is no record."""
    raw = strictjson.mapping(record.read_text(encoding="utf-8"))
    if raw is None:
        raise ValueError("no record")
    sha256 = str(raw["sha256"])
    return Cached(Key.from_json(raw["key"]), record.parent / sha256[:16] / Path(raw["wheel"]).name, sha256,
                  dict(raw["record"]))


def _damage(cached: Cached) -> str | None:
    try:
        have = sha256_of(cached.path)
    except OSError as error:
        return error.strerror or "it can't be read"
    return None if have == cached.sha256 else f"its sha256 is {have[:12]}…, its record says {cached.sha256[:12]}…"


def keep(domain: Domain, key: Key, path: Path, record: Mapping[str, Any]) -> Cached:
    """Copy a wheel into a domain's, whole or not at all, in place of what this key had there. Raises OSError."""
    sha256 = sha256_of(path)
    own = folder(domain) / key.name
    wheel = own / sha256[:16] / path.name
    with atomic.replacing(wheel, 0o700) as new:
        shutil.copyfile(path, new)
    text = json.dumps({"key": key.to_json(), "wheel": path.name, "sha256": sha256, "bytes": wheel.stat().st_size,
                       "record": dict(record)}, indent=1)
    atomic.write(own / "record.json", text + "\n")
    for old in own.iterdir():
        if old.is_dir() and old != wheel.parent:
            shutil.rmtree(old, ignore_errors=True)
    return Cached(key, wheel, sha256, dict(record))
