"""This machine's folders of the user's: the home, what ~ stands for, where state and caches go. Makes none of them."""

from __future__ import annotations

import os
from pathlib import Path

from qwen_rig.errors import RigError
from qwen_rig.values import Wrong, local_path

REMEDY = "set HOME to a folder of yours"


def home() -> Path:
    """The home folder. Raises RigError where there is none: qwen-rig never makes one."""
    try:
        found = Path.home()
    except RuntimeError:
        raise RigError("your home folder isn't known", "HOME", REMEDY) from None
    try:
        there = found.is_absolute() and found.is_dir()
    except (OSError, ValueError):  # a name too long, a NUL
        there = False
    if not there:
        raise RigError(f"your home folder isn't there: {found}", "HOME", REMEDY)
    return found


def expanded(path: str | Path, where: str = "") -> Path:
    """The path with ~ and ~NAME written out. Raises RigError where that names nobody, or no file can have the path."""
    try:
        return Path(local_path(str(path))).expanduser()
    except Wrong as wrong:
        raise RigError(f"the path {wrong.what}", where or "a path", wrong.remedy) from None
    except RuntimeError:
        first = str(path).split("/", 1)[0]
        raise RigError(f"{first} is no user's home", where or str(path), "write the path out, from / on") from None


def own(variable: str, usual: str) -> Path:
    """Our folder in that of a variable of the XDG base directories, which is ~/`usual` where it isn't set (or is no
    absolute path, which it must be by that specification). Raises RigError where there is no home for it."""
    said = os.environ.get(variable, "")
    base = expanded(said, variable) if said else Path()
    return (base if base.is_absolute() else home() / usual) / "qwen-rig"


def state() -> Path:
    """Where what is remembered goes. Raises RigError."""
    return own("XDG_STATE_HOME", ".local/state")


def cache() -> Path:
    """The cache folder: its files can be fetched again. Raises RigError."""
    return own("XDG_CACHE_HOME", ".cache")


def check() -> None:
    """Raises RigError where a run would have no place for these, before it begins."""
    state()
    cache()
