"""Files of a folder that somebody else may have filled: opened through no link, served only as what a manifest says."""

from __future__ import annotations

import hashlib
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from io import BufferedReader
from pathlib import Path
from tempfile import TemporaryFile
from threading import Lock
from typing import IO

PIECE = 1 << 20
SMALL = 8 << 20  # read whole, hashed, and served from memory
SETTLED_S = 2  # file systems tell times in steps of up to 2 s (FAT): what changed since shows only after

State = tuple[int, int, int, int, int]


class Refused(Exception):
    """What a path leads to isn't used; its text is why."""


@contextmanager
def opened(folder: Path, path: str) -> Iterator[BufferedReader]:
    """The regular file at `path` below a folder, opened for reading; no component of the path may be a link.

    Raises Refused, and OSError where the file isn't there or can't be read.
    """
    *above, name = _parts(path)
    here = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for part in above:
            _kind(here, part, path, stat.S_ISDIR)
            below = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=here)
            os.close(here)
            here = below
        _kind(here, name, path, stat.S_ISREG)  # looked at before: opening a device may do something by itself
        found = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=here)
    finally:
        os.close(here)
    with open(found, "rb") as file:
        if not stat.S_ISREG(os.fstat(found).st_mode):
            raise Refused(f"{path} is no regular file")
        yield file


def room(folder: Path, path: str) -> Path:
    """Where a file may be written: `path` below a folder. Raises Refused where a component of the path, the file or the
    part beside it that a broken download left is a link, or has another name elsewhere."""
    target = folder
    parts = _parts(path)
    for part in parts[:-1]:
        target = target / part
        if target.is_symlink() or (target.exists() and not target.is_dir()):
            raise Refused(f"{path}: {part} is no folder, and nothing is written through it")
    for name in (parts[-1], f"{parts[-1]}.part"):
        try:
            found = os.lstat(target / name)
        except FileNotFoundError:
            continue
        if not stat.S_ISREG(found.st_mode) or (name.endswith(".part") and found.st_nlink > 1):
            raise Refused(f"{path}: {name} is no regular file of its own, and nothing is written to it")
    return target / parts[-1]


def _parts(path: str) -> list[str]:
    parts = path.split("/")
    if not all(parts) or {".", ".."} & set(parts) or "\0" in path:
        raise Refused(f"{path!r} leads out of its folder")
    return parts


def _kind(folder: int, name: str, path: str, wanted: Callable[[int], bool]) -> None:
    mode = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
    if not wanted(mode):
        raise Refused(f"{path}: {name} is {'a link' if stat.S_ISLNK(mode) else 'no regular file or folder'}")


class Content:
    """A file's bytes, which were seen to have the sha256 that they should. `size`: how many; `state`: the file's when
    its hash was checked, None where `data` is the whole file."""

    def __init__(self, file: IO[bytes], size: int, data: bytes, state: State | None) -> None:
        self.size = size
        self._file, self._data, self._state = file, data, state

    def piece(self, start: int, end: int) -> bytes:
        """These bytes, or fewer, but one at least. Raises Refused where the file was written to since its hash was
        checked."""
        if self._state is None:
            return self._data[start:end]
        self._file.seek(start)
        found = self._file.read(min(PIECE, end - start))
        if not found or _state(self._file) != self._state:  # looked at after reading: what was read is as it was
            raise Refused("the file was written to while it was served")
        return found


class Checked:
    """Opens files and checks their hash, a large one once as long as nothing writes to it."""

    def __init__(self) -> None:
        self._known: dict[State, str] = {}
        self._hashing = Lock()  # ten hosts that ask for one wheel have it hashed once

    @contextmanager
    def opened(self, folder: Path, path: str, sha256: str, size: int) -> Iterator[Content]:
        """The content of a file of that size and hash. Raises Refused where it is another, OSError where none."""
        with opened(folder, path) as file, ExitStack() as stack:
            if os.fstat(file.fileno()).st_size != size:
                raise Refused(f"{path} is not as long as its manifest says")
            if size <= SMALL:
                data = file.read(size + 1)
                found, content = hashlib.sha256(data).hexdigest(), Content(file, size, data, None)
            elif _recent(_state(file)):  # a later write may leave the same times
                copy = stack.enter_context(TemporaryFile(dir=folder))  # nobody else has a name for it
                found = _hash(file, size, copy)
                content = Content(copy, size, b"", _state(copy))
            else:
                found, state = self._settled(file, size)
                content = Content(file, size, b"", state)
            if found != sha256:
                raise Refused(f"{path} isn't the file that its manifest names: its sha256 is another")
            yield content

    def _settled(self, file: IO[bytes], size: int) -> tuple[str, State]:
        """A file's hash, and its state then: from now on, a write to it shows in that."""
        with self._hashing:
            state = _state(file)
            if state not in self._known:
                found = _hash(file, size)
                if _state(file) != state or _recent(state):
                    raise Refused("the file was written to while it was read")
                self._known[state] = found
            return self._known[state], state


def _hash(file: IO[bytes], size: int, copy: IO[bytes] | None = None) -> str:
    """The sha256 of so many bytes and one more; they go to `copy` too."""
    made, left = hashlib.sha256(), size + 1
    while left and (piece := file.read(min(PIECE, left))):
        made.update(piece)
        left -= len(piece)
        if copy is not None:
            copy.write(piece)
        time.sleep(0)  # a run's hosts share one thread
    if copy is not None:
        copy.flush()
    return made.hexdigest()


def _recent(state: State) -> bool:
    return time.time() - state[-1] / 1e9 < SETTLED_S


def _state(file: IO[bytes]) -> State:
    """What changes with each write to a file: device, inode, size, times of content and inode."""
    found = os.fstat(file.fileno())
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
