"""A file written whole or not at all: under another name beside the target, then renamed.

Several runs, and several hosts of one run, write the same files: the other name is a new one each time, and the last
rename wins.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def write(path: Path, content: str | bytes, mode: int = 0o666, folder_mode: int | None = None) -> None:
    """Make `content` (a text as UTF-8) a file's content. Raises OSError; the file then is what it was.

    `mode`: of the file, less the umask. `folder_mode`: of its folder, made where it isn't there; None: it must be.
    """
    data = content.encode() if isinstance(content, str) else content
    if path.exists() and not path.is_file():  # /dev/stdout: written to, and not replaced
        path.write_bytes(data)
        return
    with replacing(path, folder_mode) as new, \
            open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(data)


@contextmanager
def replacing(path: Path, folder_mode: int | None = None) -> Iterator[Path]:
    """A free name beside the file; what the block writes there takes the file's place at its end, or is removed where
    the block raises. Raises OSError. A link stays: what it points at is replaced."""
    target = Path(os.path.realpath(path))
    if folder_mode is not None:
        target.parent.mkdir(mode=folder_mode, parents=True, exist_ok=True)
    new = target.with_name(f".{target.name}.{uuid.uuid4().hex[:12]}")
    try:
        yield new
        new.replace(target)
    except BaseException:
        with suppress(OSError):
            new.unlink(missing_ok=True)
        raise
