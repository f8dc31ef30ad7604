"""What is fetched of a run: the host's list of files, a stranger's word, and the folder here that they go to."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qwen_rig import atomic, strictjson, values
from qwen_rig.catalog.bounds import load_bounds
from qwen_rig.errors import RigError
from qwen_rig.frozen import frozen

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}\.(safetensors|json)")  # weights without code in them, and JSON
MARK = "qwen-rig-run.json"  # in the folder here: whose files these are
WEIGHTS = re.compile(r"(adapter_)?model(-[0-9]{5}-of-[0-9]{5})?\.safetensors")
MOST_FILES = 500


@frozen
class File:
    """One file as its host describes it."""

    name: str
    bytes: int
    sha256: str


def listed(found: Mapping[str, Any], where: str) -> list[File]:
    """The files of a run, smallest first. Raises RigError for a list that no honest host makes, or one without
    weights."""
    bounds, files = load_bounds().run, []
    if len(found) > MOST_FILES:
        raise RigError(f"the host lists {len(found)} files", where, f"a model has {MOST_FILES} at most")
    for name, row in found.items():
        if not NAME.fullmatch(name) or name == MARK or ".." in name:
            raise RigError(f"the host lists a file that isn't taken: {name[:100]!r}", where,
                           "only .safetensors and .json come here")
        size, digest = (row.get("bytes"), row.get("sha256")) if isinstance(row, dict) else (None, None)
        most = bounds.json_bytes if name.endswith(".json") else bounds.bytes
        if type(size) is not int or not 0 <= size <= most:
            raise RigError(f"the host says that {name} has {values.shown(size)} bytes", where,
                           f"{most} at most are taken")
        try:
            files.append(File(name, size, values.sha256(digest)))
        except values.Wrong as wrong:
            raise RigError(f"the sha256 of {name} {wrong.what}", where, wrong.remedy) from None
    if len({file.name.lower() for file in files}) < len(files):
        raise RigError("the host lists two files of one name", where, "some disks don't tell capitals apart")
    if sum(file.bytes for file in files) > bounds.bytes:
        raise RigError("the host lists more bytes than qwen-rig fetches", where, f"{bounds.bytes} at most: bounds.yml")
    if not any(WEIGHTS.fullmatch(file.name) for file in files):
        raise RigError("there are no weights yet", where, "the first checkpoint brings them: --save_steps")
    return sorted(files, key=lambda file: file.bytes)


class Target:
    """The folder here; a file stands in it whole and checked, or as a part that the next fetch goes on with."""

    def __init__(self, folder: Path, run: str) -> None:
        self.folder, self.run = folder, run

    def begin(self, files: list[File], step: int | None, finished: bool) -> None:
        """Make the folder ours. Raises RigError where another run has it, or the disk is too small."""
        try:
            if self.folder.exists() and any(self.folder.iterdir()) and self._read().get("run") != self.run:
                raise RigError("the folder is there, and holds other things", str(self.folder),
                               "name another: -o FOLDER")
            self.folder.mkdir(parents=True, exist_ok=True)
            left = sum(file.bytes for file in files if not self.has(file))
            if (free := shutil.disk_usage(self.folder).free) < left:
                raise RigError(f"the disk has {free >> 20} MiB free, and {left >> 20} MiB are still to be copied",
                               str(self.folder), "make room, or name another: -o FOLDER")
            self._mark(step, finished, whole=False, names=self._named() | {file.name for file in files})
        except OSError as error:
            raise RigError(f"the folder can't be used: {error.strerror}", str(self.folder), "name another: -o FOLDER"
                           ) from None

    def end(self, files: list[File], step: int | None, finished: bool) -> None:
        """All is there; what an earlier fetch brought, and this one's checkpoint hasn't, goes."""
        names = {file.name for file in files}
        for name in self._named() - names:
            (self.folder / name).unlink(missing_ok=True)
        self._mark(step, finished, whole=True, names=names)
        for part in self.folder.glob(".*.part"):
            part.unlink(missing_ok=True)

    def _read(self) -> Mapping[str, Any]:
        try:
            return strictjson.mapping((self.folder / MARK).read_text(encoding="utf-8")) or {}
        except (OSError, UnicodeDecodeError):
            return {}

    def _named(self) -> set[str]:
        """The files that fetches into this folder have begun to bring, by our own mark."""
        names = self._read().get("files")
        return {each for each in names if isinstance(each, str) and NAME.fullmatch(each)} \
            if isinstance(names, list) else set()

    def _mark(self, step: int | None, finished: bool, whole: bool, names: set[str]) -> None:
        made = {"run": self.run, "step": step, "finished": finished, "whole": whole, "files": sorted(names)}
        atomic.write(self.folder / MARK, json.dumps(made) + "\n")

    def has(self, file: File) -> bool:
        """Whether the file is there, byte for byte."""
        path = self.folder / file.name
        if path.is_symlink() or not path.is_file() or path.stat().st_size != file.bytes:
            return False
        return _digest(path) == file.sha256

    def part(self, file: File) -> Path:
        """Where what has come of it lies; another content has another."""
        return self.folder / f".{file.name}.{file.sha256[:12]}.part"

    def come(self, file: File) -> int:
        """How many bytes of it have come."""
        try:
            size = self.part(file).lstat().st_size
        except OSError:
            return 0
        return size if size <= file.bytes and not self.part(file).is_symlink() else 0

    def add(self, file: File, at: int, data: bytes) -> None:
        """Bytes of it from there on. Raises OSError, also for a link in the part's place."""
        handle = os.open(self.part(file), os.O_WRONLY | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
        with os.fdopen(handle, "wb") as opened:
            opened.seek(at)
            opened.truncate()
            opened.write(data)

    def settle(self, file: File) -> None:
        """Check the sha256 of what has come, and give it its name; dropped where it is another. Raises RigError."""
        part = self.part(file)
        if not part.exists():
            self.add(file, 0, b"")
        if _digest(part) != file.sha256:
            part.unlink()
            raise RigError(f"{file.name} came with other bytes than its host said", str(self.folder),
                           "the same command again fetches it anew")
        part.replace(self.folder / file.name)


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
