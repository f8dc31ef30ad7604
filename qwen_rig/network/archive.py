"""apt's archives handed on to hosts without a way out: fetched here, once for all of them, and kept in the bundle.

apt on the host checks signatures and sums as ever; here a package is compared with its archive's own index, so that
a broken or false download isn't kept.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import re
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any
from urllib.parse import unquote

from qwen_rig.network.fetch import fetch
from qwen_rig.network.web import Unreachable, bare

PLACE = "apt"  # its folder in the bundle, and the first word of its paths: apt/https/HOST/…
# What apt fetches: below dists/ its indexes, in a flat repository the same beside the packages; and packages.
_FETCHED = re.compile(r"dists/.+|(.*/)?((In)?Release(\.gpg)?|Packages(\.\w+)?|[^/]+\.deb)")
_BY_HASH = re.compile(r"by-hash/SHA256/([0-9a-f]{64})$")
_OPENERS = {b"\xfd7zXZ": lzma.open, b"\x1f\x8b": gzip.open, b"BZh": bz2.open}


class Forbidden(Exception):
    """A host asked for something that none of its archives holds."""


class Archive:
    """The archives of this run's hosts, cached below a bundle's folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / PLACE
        self._bases: set[str] = set()
        self._current: set[str] = set()  # what was fetched or checked in this run
        self._locks: dict[str, Lock] = {}
        self._guard = Lock()

    def allow(self, uris: Iterable[str]) -> None:
        """Hand these archives on too: the URIs of a host's apt sources. Those that aren't http(s) are passed over."""
        self._bases |= {f"{uri.rstrip('/')}/" for uri in uris if re.match(r"https?://[^/]", uri)}

    def file(self, path: str) -> Path:
        """`https/HOST/PATH`, quoted as in its URL → the file. Packages and indexes named by their hash are fetched
        once for ever; other indexes once in each run, and where that fails the last ones are good enough.

        Raises Forbidden for what no allowed archive holds, Unreachable for what can't be had.
        """
        scheme, _, rest = path.partition("/")
        url, name = f"{scheme}://{rest}", unquote(rest)
        base = max((base for base in self._bases if url.startswith(base)), key=len, default=None)
        inside = unquote(url[len(base or ""):])
        if base is None or ".." in name.split("/") or not _FETCHED.fullmatch(inside):
            raise Forbidden(f"{bare(url)} is in none of the hosts' archives")
        with self._guard:
            lock = self._locks.setdefault(url, Lock())
        with lock:
            if url not in self._current:
                self._bring(url, self._here(base), inside)
                self._current.add(url)
        return self._here(url)

    def _here(self, url: str) -> Path:
        return self.folder / unquote(url.replace("://", "/", 1))

    def _bring(self, url: str, base: Path, inside: str) -> None:
        target, by_hash = self._here(url), _BY_HASH.search(inside)
        if wanted := by_hash[1] if by_hash else self._sha256(base, inside):
            fetch(url, target, wanted)
            return
        try:  # it may change from day to day
            fetch(url, target, None)
        except Unreachable as error:
            if error.status is not None or not target.is_file():
                raise

    def _sha256(self, base: Path, inside: str) -> str | None:
        """What the archive's index says of a package, by those that have passed here; None: nothing."""
        if not inside.endswith(".deb"):
            return None
        return next((sums[inside] for index in _indexes(base)
                     if inside in (sums := _sums(index, index.stat().st_mtime_ns))), None)


def _indexes(base: Path) -> Iterator[Path]:
    """The lists of packages among an archive's files here, the newest first."""
    found = [path for path in base.rglob("*") if path.is_file() and (
        re.fullmatch(r"Packages(\.(xz|gz|bz2))?", path.name)
        or (path.parent.parent.name == "by-hash" and "/binary-" in str(path) and path.suffix == ""))]
    yield from sorted(found, key=lambda path: -path.stat().st_mtime_ns)


@cache
def _sums(index: Path, changed: int) -> dict[str, str]:
    """Path of each package in a list → its sha256; nothing where it is no list. `changed`: of which moment."""
    with open(index, "rb") as file:
        head = file.read(6)
    opener: Any = next((opener for magic, opener in _OPENERS.items() if head.startswith(magic)), open)
    found: dict[str, str] = {}
    try:
        with opener(index, "rb") as lines:
            name = sha256 = ""
            for line in lines:  # two fields of each paragraph, in whatever order
                if line.startswith(b"Filename: "):
                    name = line[10:].decode().strip().removeprefix("./")
                elif line.startswith(b"SHA256: "):
                    sha256 = line[8:].decode().strip()
                elif line == b"\n":
                    name = sha256 = ""
                if name and sha256:
                    found[name], name, sha256 = sha256, "", ""
    except (OSError, EOFError, lzma.LZMAError, UnicodeDecodeError):
        return {}
    return found
