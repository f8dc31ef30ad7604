"""YAML files as plain data that knows its lines: every complaint can say file and line.

One reader for all: the project's own data, stack files of the user's own, lab.yml and cloud.yml. What it reads is
bounded (size, depth, what aliases come to), and a name that is given twice is refused.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from qwen_rig import homes
from qwen_rig.errors import RigError
from qwen_rig.frozen import frozen
from qwen_rig.values import shown as shown

MAX_BYTES = 1 << 20  # our largest file has 60 kB
MAX_DEPTH = 60
MAX_VALUES = 200_000  # with every alias counted as often as it's named

Loc = tuple[Hashable, ...]  # where a value is: ("deviations", 2, "why")
_C_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast; not in every build
_STR, _MERGE = "tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"
_PLAIN_TAGS = {None, "!", "tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"}


def key_name(loc: Loc) -> str:
    """A place in a file as its reader writes it: `torch.cuda`, `deviations[2].why`."""
    name = ""
    for part in loc:
        name += f"[{part}]" if isinstance(part, int) and not isinstance(part, bool) else f"{'.' if name else ''}{part}"
    return name


@frozen
class Wording:
    """What a kind of file says where it can't be read. `missing`: what to do where it isn't there; `example`: what
    shows its form; `names`: how the mapping at a place is called."""

    bad: str = "is no YAML"
    missing: str = ""
    example: str = "correct it there"
    names: Callable[[Loc], str] = field(default=lambda loc: key_name(loc) or "the file")


@frozen
class YamlFile:
    """A file that was read. `shown`: its path as messages have it; `data`: dicts, lists and scalars."""

    path: Path
    shown: str
    data: Any
    wording: Wording
    _lines: Mapping[int, Mapping[Any, int]]  # id of a container of `data` → key or index → line

    def line(self, loc: Loc) -> int | None:
        """The line of the key or list item at a place, or of the nearest thing around it; None for the file itself."""
        found, here = None, self.data
        for part in loc:
            lines = self._lines.get(id(here), {})
            if part not in lines:
                break
            found, here = lines[part], here[part]
        return found

    def where(self, loc: Loc = ()) -> str:
        """`file:line` of a place."""
        line = self.line(loc)
        return f"{self.shown}:{line}" if line else self.shown

    def error(self, what: str, loc: Loc = (), remedy: str = "") -> RigError:
        """A complaint about a place."""
        return RigError(what, self.where(loc), remedy or self.wording.example)


def read(path: Path, wording: Wording | None = None) -> YamlFile:
    """Read a file. Raises RigError, one line, where it can't be read, or is no YAML that we take."""
    try:
        path = homes.expanded(path)
    except RigError as error:
        raise RigError(f"can't be read: {error.what}", str(path), error.remedy) from None
    near = wording is not None and path.absolute().is_relative_to(Path.cwd())  # an inventory's short name
    wording = wording or Wording()
    name = os.path.relpath(path) if near else str(path)
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
        text = raw.decode("utf-8")
    except FileNotFoundError as error:
        what = "no such file" if wording.missing else f"can't be read: {error.strerror}"
        raise RigError(what, name, wording.missing) from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        if not isinstance(error, UnicodeDecodeError):
            why = error.strerror if isinstance(error, OSError) else error
            raise RigError(f"can't be read: {why}", name, "name one that can") from None
        line = raw.count(b"\n", 0, error.start) + 1
        raise RigError("can't be read: not UTF-8 text", f"{name}:{line}", "save it as UTF-8") from None
    if len(raw) > MAX_BYTES:
        raise RigError(f"can't be read: it has more than {MAX_BYTES >> 20} MiB", name, wording.example)
    try:
        data, lines = _Reader(text, wording).document()
    except _Bad as bad:
        raise RigError(bad.what, f"{name}:{bad.line}" if bad.line else name, bad.remedy or wording.example) from None
    except yaml.YAMLError as error:
        words, line = _told(error, text)
        raise RigError(f"{wording.bad}: {words}", f"{name}:{line}" if line else name, wording.example) from None
    return YamlFile(path, name, data, wording, lines)


def given(data: Any, where: str) -> YamlFile:
    """Data that came another way than by a file, to be checked like one: `where` stands for its name."""
    return YamlFile(Path(where), where, data, Wording(), {})


class _Bad(Exception):
    def __init__(self, what: str, line: int = 0, remedy: str = "") -> None:
        self.what, self.line, self.remedy = what, line, remedy


_NO_KEY: Any = object()
_MERGE_KEY: Any = object()


@dataclass
class _Open:
    """A mapping or list being read. `values` and `height`: how much it holds, with aliases written out."""

    made: Any
    lines: dict[Any, int]
    anchor: str | None
    key: Any = _NO_KEY
    line: int = 0
    merged: list[dict[Any, Any]] | None = None
    values: int = 1
    height: int = 1


class _Reader:
    """One run over a file's YAML events; a loop, so that no nesting can exhaust the stack."""

    def __init__(self, text: str, wording: Wording) -> None:
        self.loader, self.wording = _C_LOADER(text), wording
        self.lines: dict[int, dict[Any, int]] = {}
        self.anchors: dict[str, tuple[Any, int, int]] = {}  # name → value, how much it holds, how deep
        self.open: list[_Open] = []
        self.kept: list[Any] = []  # what lines are kept of must live, for its id to stay its own
        self.top: Any = _NO_KEY

    def document(self) -> tuple[Any, dict[int, dict[Any, int]]]:
        """(the data, lines by container). Raises _Bad or yaml.YAMLError."""
        documents = 0
        while True:
            event = self.loader.get_event()
            kind = type(event)
            if kind is yaml.ScalarEvent:
                self._scalar(event)
            elif kind in (yaml.MappingStartEvent, yaml.SequenceStartEvent):
                self._start(event, {} if kind is yaml.MappingStartEvent else [])
            elif kind in (yaml.MappingEndEvent, yaml.SequenceEndEvent):
                self._end()
            elif kind is yaml.AliasEvent:
                self._alias(event)
            elif kind is yaml.DocumentStartEvent:
                documents += 1
                if documents > 1:
                    raise _Bad(f"{self.wording.bad}: a second document begins", _line(event), "make it one file each")
            elif kind is yaml.StreamEndEvent:
                break
        if self.top is _NO_KEY:
            raise _Bad("the file is empty")
        return self.top, self.lines

    def _scalar(self, event: Any) -> None:
        tag = event.tag
        if tag is None and event.implicit[0]:
            hints = self.loader.yaml_implicit_resolvers.get(event.value[:1], ())
            tag = next((tag for tag, like in hints if like.match(event.value)), _STR)
        value: Any = event.value
        if tag == _MERGE and self._awaits_key():
            value = _MERGE_KEY
        elif tag not in (None, "!", _STR):
            value = self._constructed(tag, event)
        if event.anchor:
            self._name(event, (value, 1, 0))
        self._add(value, event, 1, 0)

    def _constructed(self, tag: str, event: Any) -> Any:
        node = yaml.ScalarNode(tag, event.value, event.start_mark, event.end_mark)
        try:
            return self.loader.construct_object(node)
        except (ValueError, OverflowError) as error:  # the 31st of February, an integer of 5000 digits
            raise _Bad(f"{self.wording.bad}: {' '.join(str(error).split())}", _line(event)) from None
        except (LookupError, AttributeError, TypeError):  # PyYAML's own slips: `!!bool x`, `!!timestamp x`
            raise _Bad(f"{self.wording.bad}: {shown(event.value)} isn't what its tag says", _line(event)) from None

    def _start(self, event: Any, made: Any) -> None:
        if self._awaits_key():
            raise _Bad(f"{self.wording.bad}: a list or a mapping can't be a key", _line(event))
        if event.tag not in _PLAIN_TAGS:
            raise _Bad(f"{self.wording.bad}: unknown tag {event.tag}", _line(event), "leave it out")
        if len(self.open) >= MAX_DEPTH:
            raise _Bad(f"{self.wording.bad}: more than {MAX_DEPTH} levels deep", _line(event))
        one = _Open(made, {}, event.anchor)
        if one.anchor:
            self._name(event, (_NO_KEY, 0, 0))  # until it ends: a list can't hold itself
        self.lines[id(made)] = one.lines
        self.kept.append(made)
        self._place(made, event)
        self.open.append(one)

    def _end(self) -> None:
        done = self.open.pop()
        if done.merged:
            own, lines = dict(done.made), dict(done.lines)
            done.made.clear()
            for source in done.merged:  # the first that has a key gives it
                for key, value in source.items():
                    if key not in done.made:
                        done.made[key] = value
                        done.lines[key] = self.lines[id(source)].get(key, 0)
            done.made.update(own)
            done.lines.update(lines)
        if done.anchor:
            self.anchors[done.anchor] = (done.made, done.values, done.height)
        if self.open:
            self._count(done.values, done.height, 0)
            self._settle(done.made)

    def _alias(self, event: Any) -> None:
        if event.anchor not in self.anchors:
            raise _Bad(f"{self.wording.bad}: found undefined alias {event.anchor!r}", _line(event))
        value, values, height = self.anchors[event.anchor]
        if value is _NO_KEY:
            raise _Bad(f"{self.wording.bad}: {event.anchor!r} would hold itself", _line(event))
        if self._awaits_key() and isinstance(value, (dict, list)):
            raise _Bad(f"{self.wording.bad}: a list or a mapping can't be a key", _line(event))
        self._add(value, event, values, height)

    def _name(self, event: Any, what: tuple[Any, int, int]) -> None:
        if event.anchor in self.anchors:
            raise _Bad(f"{self.wording.bad}: found duplicate anchor {event.anchor!r}", _line(event))
        self.anchors[event.anchor] = what

    def _awaits_key(self) -> bool:
        return bool(self.open) and type(self.open[-1].made) is dict and self.open[-1].key is _NO_KEY

    def _add(self, value: Any, event: Any, values: int, height: int) -> None:
        """A whole value (or key) where the reading has come to."""
        if self._awaits_key():
            self._key(value, event)
            return
        if self.open:
            self._count(values, height, _line(event))
        self._place(value, event)
        if self.open:
            self._settle(value)

    def _key(self, key: Any, event: Any) -> None:
        at = self.open[-1]
        twice = at.merged is not None if key is _MERGE_KEY else key in at.made
        if twice:
            text = "<<" if key is _MERGE_KEY else key
            first = f", first in line {at.lines[key]}" if key in at.lines else ""
            raise _Bad(f"{text!r} stands twice in {self.wording.names(self._loc())}{first}", _line(event),
                       "rename one or remove it")
        at.key, at.line = key, _line(event)

    def _place(self, value: Any, event: Any) -> None:
        """Put a value where it belongs; what a container holds may come later."""
        if not self.open:
            self.top = value
            return
        at = self.open[-1]
        if type(at.made) is list:
            at.lines[len(at.made)] = _line(event)
            at.made.append(value)
        elif at.key is not _MERGE_KEY:
            at.made[at.key] = value
            at.lines[at.key] = at.line

    def _settle(self, value: Any) -> None:
        """A value is whole: what comes next in a mapping is a key."""
        at = self.open[-1]
        if at.key is _MERGE_KEY:
            sources = value if isinstance(value, list) else [value]
            if not all(isinstance(source, dict) for source in sources):
                raise _Bad(f"{self.wording.bad}: expected a mapping or list of mappings for merging", at.line)
            at.merged = sources
        at.key = _NO_KEY

    def _count(self, values: int, height: int, line: int) -> None:
        at = self.open[-1]
        at.values, at.height = at.values + values, max(at.height, height + 1)
        if at.values > MAX_VALUES or len(self.open) + height > MAX_DEPTH:
            raise _Bad(f"{self.wording.bad}: its aliases come to too much", line or at.line)

    def _loc(self) -> Loc:
        return tuple(one.key if type(one.made) is dict else len(one.made) - 1 for one in self.open[:-1])


def _line(event: Any) -> int:
    return int(event.start_mark.line) + 1


def _told(error: yaml.YAMLError, text: str) -> tuple[str, int]:
    """(words, line) of what is wrong; PyYAML's own, which say more than libyaml's, where both find it wrong."""
    try:
        for _ in yaml.parse(text, yaml.SafeLoader) if "nesting" not in str(error) else ():
            pass
    except yaml.YAMLError as better:
        error = better
    if isinstance(error, yaml.reader.ReaderError):
        character = error.character if isinstance(error.character, int) else 0
        return (f"a character that YAML doesn't allow (U+{character:04X})", text.count("\n", 0, error.position) + 1)
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        words = " ".join((error.problem or error.context or "unreadable").split())
        return words, mark.line + 1 if mark else 0
    return " ".join(str(error).split()), 0
