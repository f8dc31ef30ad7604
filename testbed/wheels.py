"""The wheelhouse: what the controller's own pip fetched, checked against the lock's hashes, for the hosts' index."""

from __future__ import annotations

import hashlib
import os
import sys
import uuid
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from packaging.utils import InvalidSdistFilename, InvalidWheelFilename, parse_sdist_filename, parse_wheel_filename

from ._shell import TestbedError, run
from .paths import cache, locked

BUILD_LOCK = Path(__file__).parent.parent / "qwen_rig" / "data" / "locks" / "build.lock.txt"


def folder() -> Path:
    """Where the files lie; one flat folder, since a lock's hashes say which file it means."""
    path = cache() / "wheels"
    path.mkdir(exist_ok=True)
    return path


def ensure_wheels(lock_path: str | Path, python: str | Path) -> int:
    """Fetch every file that a lock with hashes names for this Python; returns the bytes now on disk for all locks.

    Fetched once: a lock of the same content with the same Python is not looked at again. pip refuses a wrong hash.
    """
    lock = Path(lock_path)
    version = run([python, "-c", "import platform; print(platform.python_version())"]).strip()
    digest = hashlib.sha256(lock.read_bytes() + BUILD_LOCK.read_bytes()).hexdigest()
    stamp = cache() / "stamps" / f"{digest[:16]}-{version}"
    with locked("wheels"):
        if not stamp.exists():
            _download(python, ["--require-hashes", "-r", str(lock)], str(lock))
            _download(python, ["--require-hashes", "-r", str(BUILD_LOCK)], "build tools")
            stamp.parent.mkdir(exist_ok=True)
            stamp.touch()
    return sum(path.stat().st_size for path in folder().iterdir() if path.is_file())


def _download(python: str | Path, what: list[str], title: str) -> None:
    print(f"testbed: fetching {title} with pip", file=sys.stderr)
    try:
        run([python, _pip(), "download", "-q", "--no-deps", "--progress-bar", "off", "-d", folder(), *what],
            timeout=7200)
    except TestbedError as error:
        raise TestbedError(f"{title} · pip could not fetch it · {error}") from None


def _pip() -> Path:
    """This process's own pip as a folder that another Python can run: Debian's Python comes without one.

    It must be run by the Python that the files are for: a lock's markers and tags follow the Python that runs pip.
    """
    found = find_spec("pip")
    if found is None or found.origin is None:
        raise TestbedError(f"pip · not in {sys.prefix} · make clean setup")
    return Path(found.origin).parent


class Wheelhouse:
    """A folder of wheels and source distributions, by project."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._seen = -1
        self._projects: dict[str, list[str]] = {}

    def projects(self) -> dict[str, list[str]]:
        """Normalised project name → file names; read again when the folder changes."""
        changed = self.folder.stat().st_mtime_ns
        if changed != self._seen:
            found: dict[str, list[str]] = {}
            for path in sorted(self.folder.iterdir()):
                name = _project(path.name)
                if name:
                    found.setdefault(name, []).append(path.name)
            self._projects, self._seen = found, changed
        return self._projects

    def files(self, project: str) -> list[tuple[str, str]]:
        """(name, sha256) of a project's files; without those that another testbed has taken away since the listing."""
        found = []
        for file in self.projects().get(project, ()):
            with suppress(FileNotFoundError):
                found.append((file, self.sha256(file)))
        return found

    def sha256(self, file: str) -> str:
        """A file's digest, kept beside it: hashing a gigabyte takes seconds."""
        path = self.folder / file
        stat = path.stat()
        note = self.folder / ".sha256" / f"{file}.{stat.st_size}.{stat.st_mtime_ns}"
        if not note.exists():
            digest = hashlib.sha256()
            with open(path, "rb") as stream:
                while chunk := stream.read(1 << 20):
                    digest.update(chunk)
            note.parent.mkdir(exist_ok=True)
            # Every testbed's index reads and writes these, and every thread of one: a name of its own for each.
            partial = note.with_name(f"{note.name}.{uuid.uuid4().hex[:12]}")
            partial.write_text(digest.hexdigest(), encoding="utf-8")
            os.replace(partial, note)
        return note.read_text(encoding="utf-8")


def _project(file: str) -> str | None:
    try:
        return str(parse_wheel_filename(file)[0] if file.endswith(".whl") else parse_sdist_filename(file)[0])
    except (InvalidWheelFilename, InvalidSdistFilename):
        return None
