"""Before a host is touched: does each locked file exist where it will be fetched from? Asked from the controller."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import field
from functools import cache
from pathlib import Path

from qwen_rig import atomic, homes, strictjson
from qwen_rig.catalog.limits import load_limits
from qwen_rig.catalog.lock import Requirement
from qwen_rig.frozen import frozen
from qwen_rig.network import index as pages
from qwen_rig.network.index import File
from qwen_rig.network.web import Unreachable, bare, get, private_to_host

MOST_LETTERS = 4_000_000  # of what is kept of an index; our largest stack has 30 thousand
OTHER_BYTES = "other bytes than the lock's"  # why a file of the locked version isn't the locked one


@frozen
class Look:
    """What an index has of a lock. `unchecked` says why nothing can be said (then `missing` is empty).

    found: name → its file; missing: name → what the index answered for it.
    """

    index: str
    found: Mapping[str, File] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)
    unchecked: str | None = None


@cache
def default_index(configured: bool = False) -> str | None:
    """The index that pip uses where nobody tells it another, as its own help says; None if that can't be told.

    `configured`: as this machine's pip is configured, by its files and variables. No address of a registry stands in
    our own files.
    """
    plain = {k: v for k, v in os.environ.items() if configured or not k.startswith("PIP_")}
    if not configured:
        plain["PIP_CONFIG_FILE"] = os.devnull  # pip then reads no file at all
    try:
        said = subprocess.run([sys.executable, "-m", "pip", "download", "--help"], capture_output=True, text=True,
                              timeout=60, env={**plain, "COLUMNS": "2000"}, stdin=subprocess.DEVNULL).stdout
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.search(r"--index-url.*?\(default:?\s+((?:https?|file)://[^\s)]+)\)", said, re.DOTALL)
    return found[1] if found else None


def notes() -> Path:
    """Where complete answers are kept."""
    return homes.cache() / "preflight"


def look(index: str, wanted: Mapping[str, Requirement], python: str, own: bool = False) -> Look:
    """Ask an index for every package's page, in parallel, and find the locked file on each. Never raises.

    own: the user names the index, so that its address may be private, or plain http.
    A complete answer is kept on disk for some hours; what is missing is asked again each time.
    """
    limits = load_limits()
    if private_to_host(index):
        return Look(index, unchecked="its address means the host itself")
    note = notes() / f"{key(index, wanted, python)}.json"
    if kept := _kept(note, limits.lookup_keep_hours * 3600):
        return Look(index, kept)
    found: dict[str, File] = {}
    missing: dict[str, str] = {}
    unreachable: list[str] = []

    def one(name: str) -> None:
        if unreachable:
            return
        try:
            status, files = _page(index, name, limits.lookup_seconds, own)
        except (Unreachable, ValueError, KeyError, TypeError) as error:
            unreachable.append(f"{bare(index)}: {error}")
            return
        if fitting := pages.best(files, name, wanted[name], python):
            found[name] = fitting
        else:
            missing[name] = str(status) if status != 200 else _why(files, name, wanted[name], python)

    names = sorted(wanted)
    for name in names[:1]:  # alone: an index that doesn't answer must not be waited for by every one
        one(name)
    with ThreadPoolExecutor(limits.lookup_at_once) as pool:
        list(pool.map(one, names[1:]))
    if unreachable:
        return Look(index, unchecked=unreachable[0])
    if not missing:
        _keep(note, found)
    return Look(index, found, missing)


def _page(index: str, name: str, seconds: float, own: bool) -> tuple[int, list[File]]:
    """The status and the files of a package's page. Raises Unreachable, or what a page of another kind raises."""
    answer = get(pages.page_url(index, name), seconds, pages.ACCEPT, own=index if own else None)
    return answer.status, pages.parse(answer.body, answer.kind, answer.url) if answer.status == 200 else []


def _why(files: list[File], name: str, wanted: Requirement, python: str) -> str:
    if not wanted.hashes:
        return f"none for Python {python}"
    same = [file for file in files if re.match(rf"{re.escape(wanted.version)}(\.tar|\.zip|-|$)",
                                               file.name[len(name) + 1:])]
    return OTHER_BYTES if same else f"no {wanted.version}"


def key(index: str, wanted: Mapping[str, Requirement], python: str) -> str:
    """A digest of what is asked."""
    rows = [(name, r.version, sorted(r.hashes)) for name, r in sorted(wanted.items())]
    return hashlib.sha256(json.dumps([index, python, rows]).encode()).hexdigest()[:32]


def _kept(note: Path, seconds: float) -> dict[str, File] | None:
    try:
        if time.time() - note.stat().st_mtime > seconds:
            return None
        kept = strictjson.mapping(note.read_text(encoding="utf-8"), MOST_LETTERS) or {}
        return {name: File(*row) for name, row in kept.items()} or None
    except (OSError, ValueError, TypeError):
        return None


def _keep(note: Path, found: Mapping[str, File]) -> None:
    rows = {name: [f.name, f.url, f.sha256, f.bytes] for name, f in sorted(found.items())}
    with suppress(OSError):  # a cache that can't be written costs time, nothing else
        atomic.write(note, json.dumps(rows), folder_mode=0o777)
