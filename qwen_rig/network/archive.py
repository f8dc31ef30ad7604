"""apt's archives handed on to hosts without a way out: fetched here, once for all of them, and kept in the bundle.

apt on the host checks signatures and sums as ever; here a package is compared with its archive's own index, so that
a broken or false download isn't kept.
"""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any
from urllib.parse import unquote

from qwen_rig import atomic, inside
from qwen_rig.catalog.limits import load_limits
from qwen_rig.frozen import frozen
from qwen_rig.network.fetch import Terms, fetch
from qwen_rig.network.web import Unreachable

PLACE = "apt"  # its folder in the bundle, and the first word of its paths: apt/https/HOST/…
KEPT = f"{PLACE}/kept.json"  # the manifest of what no hash in its name or index judges: path → sha256
# What apt fetches: below dists/ its indexes, in a flat repository the same beside the packages; and packages.
_FETCHED = re.compile(r"dists/.+|(.*/)?((In)?Release(\.gpg)?|Packages(\.\w+)?|[^/]+\.deb)")
_BY_HASH = re.compile(r"by-hash/SHA256/([0-9a-f]{64})$")
_BASE = re.compile(r"https?://[A-Za-z0-9.\-_:\[\]]+(/[A-Za-z0-9._~%+,=-]+)*/?")
_PATH = re.compile(r"[A-Za-z0-9._~%+:=@,/\[\]-]+")  # as apt quotes it: no ?, no #, nothing that others would read anew
LONGEST_LINE, LONGEST_LIST = 1 << 20, 1 << 30  # of a list of packages, unpacked
_OPENERS = {b"\xfd7zXZ": lzma.open, b"\x1f\x8b": gzip.open, b"BZh": bz2.open}

TOO_MUCH = "more was asked for in this run than apt installs: no more is fetched"


class Forbidden(Exception):
    """A host asked for something that none of its archives holds."""


def is_address(text: str) -> bool:
    """Whether a text is an archive's address as it can be allowed: http or https, no user, no query, nothing quoted
    that leads elsewhere."""
    return _BASE.fullmatch(text) is not None and _plain(text.partition("://")[2].rstrip("/"))


def _plain(path: str) -> bool:
    """Whether each part of a path is one, quoted or not."""
    parts = path.split("/")
    return all(part and unquote(part) not in (".", "..") and not set(unquote(part)) & set("/\\\0?#") for part in parts
               ) and unquote(path).isprintable()


@frozen
class Found:
    """A file that an archive holds: its path below the bundle's folder, and what its content must be."""

    path: str
    sha256: str
    bytes: int


class Store:
    """What has come from archives, kept below a bundle's folder for all hosts of a run and for later runs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._current: dict[str, str] = {}  # what was fetched or checked in this run → its sha256
        self._locks: dict[str, Lock] = {}
        self._guard = Lock()
        self._bytes = 0
        self._kept = _read_kept(folder)

    def file(self, url: str, base: str, terms: Terms) -> Found:
        """What is at an address inside an archive's. Raises Unreachable, Forbidden and inside.Refused."""
        with self._guard:
            if len(self._locks) >= load_limits().serve_run_files:
                raise Forbidden(TOO_MUCH)
            lock = self._locks.setdefault(url, Lock())
        path = _here(url)
        with lock:
            if url not in self._current:
                self._room()
                target = inside.room(self.folder, path)
                self._current[url] = self._bring(url, target, base, terms)
                self._bytes += target.stat().st_size
            with inside.opened(self.folder, path) as file:
                return Found(path, self._current[url], file.seek(0, 2))

    def _room(self) -> None:
        """Raises Forbidden where hosts had more fetched in this run than any install takes, or the disk is full."""
        limits = load_limits()
        if self._bytes > limits.serve_run_bytes:
            raise Forbidden(TOO_MUCH)
        if shutil.disk_usage(self.folder).free < limits.serve_free_bytes:
            raise Forbidden(f"the disk of {self.folder} is nearly full: no more is fetched")

    def _bring(self, url: str, target: Path, base: str, terms: Terms) -> str:
        inner, by_hash = unquote(url[len(base):]), _BY_HASH.search(url)
        if wanted := by_hash[1] if by_hash else self._sha256(_here(base), inner):
            return fetch(url, target, wanted, terms)
        try:  # it may change from day to day
            found = fetch(url, target, None, terms)
        except Unreachable as error:
            if error.status is not None or not target.is_file() or _here(url) not in self._kept:
                raise
            return self._kept[_here(url)]
        self._kept[_here(url)] = found
        atomic.write(inside.room(self.folder, KEPT), json.dumps(self._kept, indent=1, sort_keys=True) + "\n")
        return found

    def _sha256(self, base: str, inner: str) -> str | None:
        """What the archive's index says of a package, by those that have passed here; None: nothing."""
        if not inner.endswith(".deb"):
            return None
        return next((sums[inner] for path, changed in _indexes(self.folder, base)
                     if inner in (sums := _sums(self.folder, path, changed))), None)


class Archive:
    """The archives that one host may fetch from, out of a store. `store`: None: one of its own, below `folder`."""

    def __init__(self, folder: Path, store: Store | None = None) -> None:
        self.store = store or Store(folder)
        self._bases: dict[str, bool] = {}

    def allow(self, uris: Iterable[str], named: bool = False) -> None:
        """Hand these archives on. `named`: by the user's knob, so that their servers may have private addresses.

        Never what a host prints. What is no address of an archive (is_address) is passed over.
        """
        for uri in filter(is_address, uris):
            base = f"{uri.rstrip('/')}/"
            self._bases[base] = named or self._bases.get(base, False)

    def covers(self, uri: str) -> bool:
        """Whether an address is that of an allowed archive, or inside one."""
        return is_address(uri) and self._base(f"{uri.rstrip('/')}/") is not None

    def file(self, path: str) -> Found:
        """`https/HOST/PATH`, quoted as in its URL → the file. Packages and indexes named by their hash are fetched
        once for ever; other indexes once in each run, and where that fails the last ones are good enough.

        Raises Forbidden for what no allowed archive holds, Unreachable for what can't be fetched, inside.Refused where
        the bundle has something else in its place.
        """
        scheme, _, rest = path.replace("/./", "/").partition("/")  # which flat repositories have in their lists
        url = f"{scheme}://{rest}"
        base = self._base(url)
        sound = _PATH.fullmatch(rest) is not None and _plain(rest)
        if base is None or not sound or not _FETCHED.fullmatch(unquote(url[len(base):])):
            raise Forbidden("it is in none of the archives that a knob or our data name for this host")
        limits = load_limits()
        most = limits.serve_largest_deb if rest.endswith(".deb") else limits.serve_largest_index
        return self.store.file(url, base, Terms(base if self._bases[base] else None, plain=True, most=most))

    def _base(self, url: str) -> str | None:
        return max((base for base in self._bases if url.startswith(base)), key=len, default=None)


def _here(url: str) -> str:
    """The path below the bundle's folder where what is at an address lies."""
    return f"{PLACE}/{unquote(url.replace('://', '/', 1))}"


def _read_kept(folder: Path) -> dict[str, str]:
    """The manifest of what was kept; nothing where there is none that can be read."""
    try:
        with inside.opened(folder, KEPT) as file:
            rows = json.loads(file.read(16 << 20).decode())
        return {path: row for path, row in rows.items() if isinstance(row, str) and re.fullmatch("[0-9a-f]{64}", row)}
    except (inside.Refused, OSError, ValueError, AttributeError, RecursionError):
        return {}


def _indexes(folder: Path, base: str) -> Iterator[tuple[str, int]]:
    """The lists of packages among an archive's files here with the moment of each, the newest first."""
    found: list[tuple[str, int]] = []
    for at, _, names in os.walk(folder / base):  # follows no link
        above = Path(at)
        for name in names:
            hashed = above.parent.name == "by-hash" and "/binary-" in at and "." not in name
            if hashed or re.fullmatch(r"Packages(\.(xz|gz|bz2))?", name):
                with suppress(OSError):
                    found.append((str((above / name).relative_to(folder)), os.lstat(above / name).st_mtime_ns))
    yield from sorted(found, key=lambda row: -row[1])


@cache
def _sums(folder: Path, path: str, changed: int) -> Mapping[str, str]:
    """Path of each package in a list → its sha256; nothing where it is no list. `changed`: of which moment."""
    found: dict[str, str] = {}
    try:
        with inside.opened(folder, path) as file:
            opener: Any = next((opener for magic, opener in _OPENERS.items() if file.peek(6).startswith(magic)), None)
            lines = opener(file, "rb") if opener else file
            name = sha256 = ""
            read = 0
            while (line := lines.readline(LONGEST_LINE)) and (read := read + len(line)) < LONGEST_LIST:
                # two fields of each paragraph, in whatever order
                if line.startswith(b"Filename: "):
                    name = line[10:].decode().strip().removeprefix("./")
                elif line.startswith(b"SHA256: "):
                    sha256 = line[8:].decode().strip()
                elif line == b"\n":
                    name = sha256 = ""
                if name and sha256:
                    found[name], name, sha256 = sha256, "", ""
    except (inside.Refused, OSError, EOFError, lzma.LZMAError, UnicodeDecodeError):
        return {}
    return found
