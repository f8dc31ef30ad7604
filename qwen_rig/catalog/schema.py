"""Checked reading of data files: every mistake is one RigError line that names the file and the key."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from packaging.version import InvalidVersion, Version

from qwen_rig.errors import RigError

T = TypeVar("T")
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the same words, ten times as fast; not in every build
WORDS = {str: "a text", bool: "true or false", int: "a whole number", list: "a list", dict: "a mapping"}


class Table:
    """One mapping of a data file. Keys are taken out of it one by one; `done()` objects to what is left over."""

    def __init__(self, path: Path, raw: Any, at: str = "") -> None:
        self.path, self.at = path, at
        if not isinstance(raw, Mapping):
            raise self.error(f"{at or 'the file'} must be a mapping, not {shown(raw)}")
        self.raw = dict(raw)

    def error(self, what: str, remedy: str = "") -> RigError:
        return RigError(what, str(self.path), remedy)

    def key(self, name: str) -> str:
        """The full name of a key as the user finds it in the file: `torch.cuda`."""
        return f"{self.at}.{name}" if self.at else name

    def take(self, name: str, kind: type[T]) -> T:
        """The value of a key that must be there, of that type. Raises RigError."""
        if name not in self.raw:
            raise self.error(f"{self.key(name)} is missing", f"give it {WORDS[kind]}")
        value = self.raw.pop(name)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)) or value == "":
            raise self.error(f"{self.key(name)} must be {WORDS[kind]}, not {shown(value)}",
                             "quote it" if kind is str and isinstance(value, (int, float)) else "")
        return value

    def maybe(self, name: str, kind: type[T]) -> T | None:
        """The value of a key that may be missing or null."""
        if self.raw.get(name) is None:
            self.raw.pop(name, None)
            return None
        return self.take(name, kind)

    def version(self, name: str) -> str:
        """A text that must be there and be a version, as PEP 440 has it."""
        text = self.take(name, str)
        try:
            Version(text)
        except InvalidVersion:
            raise self.error(f"{self.key(name)} must be a version, not {text!r}") from None
        return text

    def maybe_version(self, name: str) -> str | None:
        """A version that may be missing or null."""
        return self.maybe(name, str) if self.raw.get(name) is None else self.version(name)

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of texts; empty where the key is missing."""
        values = self.maybe(name, list) or []
        for value in values:
            if not isinstance(value, str):
                raise self.error(f"{self.key(name)} must hold texts only, not {shown(value)}", "quote it")
        return tuple(values)

    def table(self, name: str) -> Table:
        """A mapping that must be there."""
        return Table(self.path, self.take(name, dict), self.key(name))

    def tables(self, name: str) -> list[Table]:
        """A list of mappings; empty where the key is missing."""
        return [Table(self.path, row, f"{self.key(name)}[{index}]")
                for index, row in enumerate(self.maybe(name, list) or [])]

    def named_tables(self, name: str) -> dict[str, Table]:
        """A mapping of mappings, in the file's order."""
        rows = self.table(name)
        for key in rows.raw:
            if not isinstance(key, str):
                raise self.error(f"{rows.at} has the key {shown(key)}, which isn't a text", "quote it")
        return {key: Table(self.path, row, rows.key(key)) for key, row in rows.raw.items()}

    def done(self) -> None:
        """Object to keys that nobody took. Raises RigError."""
        if self.raw:
            names = ", ".join(self.key(str(name)) for name in self.raw)
            raise self.error(f"unknown key {names}", "check its spelling")


def shown(value: Any) -> str:
    """A value as a message shows it: short, on one line."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def read(path: Path) -> Table:
    """The mapping that a YAML file holds. Raises RigError where it can't be read."""
    try:
        raw = yaml.load(path.read_text(encoding="utf-8"), LOADER)
    except OSError as error:
        raise RigError(f"can't be read: {error.strerror}", str(path)) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f"{path}:{mark.line + 1}" if mark else str(path)
        raise RigError(f"is no YAML: {getattr(error, 'problem', None) or error}", line) from None
    return Table(path, raw)
