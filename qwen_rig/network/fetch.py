"""A file fetched whole: from where a broken try left off (HTTP ranges), and kept only if its bytes are right."""

from __future__ import annotations

import fcntl
import hashlib
import http.client
import os
import time
import urllib.error
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from qwen_rig.network.address import NotAllowed
from qwen_rig.network.web import Unreachable, bare, opened

PIECE = 1 << 20
TRIES = 4  # a connection that breaks is taken up again where it was
SECONDS = 60  # of silence
PAUSE_S = 0.2  # between two looks whether another run is done with a file
LARGEST = 8 << 30


@dataclass(frozen=True)
class Terms:
    """What a fetch may do: `own` and `plain` as web.opened() takes them; `most`: bytes that a file may have."""

    own: str | None = None
    plain: bool = False
    most: int = LARGEST


def fetch(url: str, target: Path, sha256: str | None, terms: Terms = Terms()) -> str:
    """Bring a file to `target`, unless it is there already. Returns its sha256.

    Raises Unreachable where it can't be fetched, or is not what it should be (then nothing is kept of it).
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
            return _bring(url, partial, target, sha256, terms)
        finally:
            with suppress(FileNotFoundError):
                if not partial.stat().st_size:
                    partial.unlink()


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """The file, made where it isn't there, is for this process alone: several runs fetch into the same folder."""
    while True:
        with open(path, "ab", opener=_no_link) as file:
            if _ours(file.fileno(), path):
                yield
                return
        time.sleep(PAUSE_S)  # and not in flock, which would stop the other hosts of this run too


def _no_link(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o666)


def _ours(descriptor: int, path: Path) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except (BlockingIOError, FileNotFoundError):  # somebody has it; or had it, and has moved it
        return False


def _bring(url: str, partial: Path, target: Path, sha256: str | None, terms: Terms) -> str:
    for left in reversed(range(TRIES)):
        try:
            _continue(url, partial, terms)
            break
        except _TooLong:
            partial.unlink()
            raise Unreachable(f"{bare(url)} has more than {terms.most} bytes: not taken") from None
        except NotAllowed as error:
            raise Unreachable(f"{bare(url)}: {error}") from None
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


class _TooLong(Exception):
    """More bytes than the file may have."""


def _continue(url: str, partial: Path, terms: Terms) -> None:
    have = partial.stat().st_size if partial.is_file() else 0
    headers = {"Range": f"bytes={have}-"} if have else {}
    with opened(url, SECONDS, headers, own=terms.own, plain=terms.plain) as answer, \
            open(partial, "ab" if answer.status == 206 else "wb", opener=_no_link) as file:
        expected = answer.headers.get("Content-Length")
        got, room = 0, terms.most - (have if answer.status == 206 else 0)
        while piece := answer.read(PIECE):
            got += len(piece)
            if got > room:
                raise _TooLong
            file.write(piece)
        if expected is not None and expected.isdigit() and got < int(expected):
            raise http.client.IncompleteRead(b"", int(expected) - got)


def digest(path: Path) -> str:
    """A file's sha256."""
    found = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(PIECE):
            found.update(piece)
    return found.hexdigest()
