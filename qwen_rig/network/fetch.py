"""A file fetched whole: from where a broken try left off (HTTP ranges), and kept only if its bytes are right."""

from __future__ import annotations

import fcntl
import hashlib
import http.client
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from qwen_rig.network.web import Unreachable, bare

PIECE = 1 << 20
TRIES = 4  # a connection that breaks is taken up again where it was
SECONDS = 60  # of silence
PAUSE_S = 0.2  # between two looks whether another run is done with a file


def fetch(url: str, target: Path, sha256: str | None, told: Callable[[int], None] = lambda n: None) -> str:
    """Bring a file to `target`, unless it is there already. Returns its sha256.

    told: called with each piece's bytes. Raises Unreachable where it can't be had, or is not what it should be (then
    nothing is kept of it).
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f"{target.name}.part")
    if sha256 is not None and target.is_file() and digest(target) == sha256:
        return sha256
    with _alone(partial):
        if sha256 is None:
            os.truncate(partial, 0)  # it may not be the file that it was: only what a hash will judge is continued
        elif target.is_file() and digest(target) == sha256:  # another run has brought it
            partial.unlink()
            return sha256
        try:
            return _bring(url, partial, target, sha256, told)
        finally:
            with suppress(FileNotFoundError):
                if not partial.stat().st_size:
                    partial.unlink()


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """The file, made where it isn't there, is for this process alone: several runs fetch into the same folder."""
    while True:
        with open(path, "ab") as file:
            if _ours(file.fileno(), path):
                yield
                return
        time.sleep(PAUSE_S)  # and not in flock, which would stop the other hosts of this run too


def _ours(descriptor: int, path: Path) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except (BlockingIOError, FileNotFoundError):  # somebody has it; or had it, and has moved it
        return False


def _bring(url: str, partial: Path, target: Path, sha256: str | None, told: Callable[[int], None]) -> str:
    for left in reversed(range(TRIES)):
        try:
            _continue(url, partial, told)
            break
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, urllib.error.HTTPError) and error.code != 416:
                said = Unreachable(f"{bare(url)}: HTTP {error.code}")
                said.status = error.code
                raise said from None
            if isinstance(error, urllib.error.HTTPError):  # nothing is left to fetch, or it isn't the file it was
                break
            if not left:
                raise Unreachable(f"{bare(url)}: {error or type(error).__name__}") from None
    found = digest(partial)
    if sha256 is not None and found != sha256:
        partial.unlink()
        raise Unreachable(f"{bare(url)} is not the file that is wanted: its sha256 is {found}, not {sha256}")
    partial.replace(target)
    return found


def _continue(url: str, partial: Path, told: Callable[[int], None]) -> None:
    have = partial.stat().st_size if partial.is_file() else 0
    headers = {"User-Agent": "qwen-rig", **({"Range": f"bytes={have}-"} if have else {})}
    request = urllib.request.Request(url, headers=headers)
    with urllib.request.urlopen(request, timeout=SECONDS) as answer, \
            open(partial, "ab" if answer.status == 206 else "wb") as file:
        expected = answer.headers.get("Content-Length")
        got = 0
        while piece := answer.read(PIECE):
            file.write(piece)
            got += len(piece)
            told(len(piece))
        if expected is not None and got < int(expected):
            raise http.client.IncompleteRead(b"", int(expected) - got)


def digest(path: Path) -> str:
    """A file's sha256."""
    found = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(PIECE):
            found.update(piece)
    return found.hexdigest()
