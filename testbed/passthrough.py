"""A distribution archive handed on: fetched by this machine's own apt, kept on disk. Signatures stay the archive's."""

from __future__ import annotations

import os
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from urllib.parse import quote

from .mirror import HELPER

INDEX_S = 6 * 3600  # how long a Release file is good for; pool files and by-hash files never change


class Unavailable(Exception):
    """The archive hasn't got it, or can't be reached."""


class Archive:
    """One archive at `uri`, cached below `folder`."""

    def __init__(self, uri: str, folder: Path) -> None:
        self.uri, self.folder = uri.rstrip("/"), folder
        self.absent: dict[str, float] = {}
        self.locks: dict[str, threading.Lock] = {}
        self.guard = threading.Lock()

    def path(self, name: str) -> Path:
        """The file's path on disk, fetched first where it isn't there or is an old index; raises Unavailable."""
        target = self.folder / name
        if ".." in Path(name).parts or not name:
            raise Unavailable(name)
        with self.guard:
            lock = self.locks.setdefault(name, threading.Lock())
        with lock:
            if self._fresh(target):
                return target
            if time.monotonic() - self.absent.get(name, -INDEX_S) < 600:
                raise Unavailable(name)
            if not self._fetch(name, target) and not target.exists():
                self.absent[name] = time.monotonic()
                raise Unavailable(name)
            return target

    def _fresh(self, target: Path) -> bool:
        try:
            stat = target.stat()
        except OSError:
            return False
        index = "dists" in target.parts and "by-hash" not in target.parts
        # ctime: when we wrote it; apt sets mtime to the mirror's.
        return not index or time.time() - stat.st_ctime < INDEX_S

    def _fetch(self, name: str, target: Path) -> bool:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            partial = Path(folder) / "file"
            done = subprocess.run([HELPER, "-o", "Acquire::http::Timeout=30", "-o", "Acquire::Retries=2",
                                   "download-file", f"{self.uri}/{quote(name)}", str(partial)],
                                  capture_output=True, timeout=900, check=False)
            if done.returncode != 0 or not partial.exists():
                return False
            partial.chmod(0o644)
            os.replace(partial, target)
        return True
