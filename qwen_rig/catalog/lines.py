"""An inventory file as entries that know their lines, so that every complaint can name one."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from qwen_rig.catalog.yamlfile import Loc, Wording, key_name, read
from qwen_rig.errors import RigError


class Given(NamedTuple):
    """What stands behind a name, and the line where the name stands."""

    line: int
    value: Any


Entries = dict[str, Given]


class Lines:
    """One inventory file. Raises RigError with `file:line` for whatever can't be read."""

    def __init__(self, path: Path, example: str, missing: str) -> None:
        """`example`: the file that shows the form; `missing`: what to do where `path` isn't there."""
        self.example = f"{example} shows the form"
        self.file = read(path, Wording("bad YAML", missing, self.example, _called))
        self.path, self.shown = self.file.path, self.file.shown

    def entries(self, loc: Loc, what: str) -> Entries:
        """The pairs of the mapping at a place; none where nothing stands behind the name."""
        found = self.file.data
        for part in loc:
            found = found[part]
        if loc and found is None:
            return {}
        if not isinstance(found, dict):
            at = (*loc, 0) if isinstance(found, list) else loc  # a list begins below its name
            self.refuse(self.file.line(at) or 1, f"{what} must be a mapping of `name: value` lines", self.example)
        for key in found:
            if not isinstance(key, str):
                self.refuse(self.line((*loc, key)), f"a name in {what} is not text", 'put it in quotes: "5090"')
        return {key: Given(self.line((*loc, key)), value) for key, value in found.items()}

    def line(self, loc: Loc) -> int:
        """The line of a name."""
        return self.file.line(loc) or 1

    def refuse(self, line: int, what: str, remedy: str) -> NoReturn:
        raise RigError(what, self.where(line), remedy)

    def where(self, line: int) -> str:
        return f"{self.shown}:{line}"


def _called(loc: Loc) -> str:
    """What a mapping is called: `host lab-01`, `source vast`."""
    if len(loc) == 2 and loc[0] in ("hosts", "sources"):
        return f"{str(loc[0])[:-1]} {loc[1]}"
    return key_name(loc) or "the file"
