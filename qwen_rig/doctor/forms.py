"""The doctor's data as typed rows: signatures, voices, tables of codes, and what packages are called.

A signature is a row of qwen_rig/data/doctor/*.yml:
  name      what the cause is called; a row with a reader may name it more exactly
  of        the voices (voices.yml; `link` is our own connection) whose lines it is held against; a line that no voice
            claims is read as well, unless the row is `general`: words that many programs say
  when      alternatives, any of which is enough: {says: regular expression, begun on a line of that voice, of which it
            may run on into the next; near: another that stands among the lines around; unless: another that doesn't
            stand around, nor `healed` after; facts: {sign: value or list of values}}. The signs are those of `signs()`.
  reads     a reader (qwen_rig/doctor/readers.py) that looks closer: at a table of codes, at the packages of a traceback
  over      rows that follow from this one; a name may end in *
  symptom   what is told alone only where nothing tells its cause
  cause, next   for people; {name} is a named group, a sign or a reader's word, and [?…] is left out where a name in it
            has no value
  places    the next step where the place is known: container, vm, wsl, bare_metal
  given     {of: voice, next: …}: the next step where lines of that voice were given, and need not be asked for
  source    where the text and its meaning are from, as a reader of the repository can open it
  captures  texts on which the row fires, and no other, as the source has them (`made: true`: put together by us), or
            signs, as the probe gives them on such a host
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import field
from functools import cache
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from qwen_rig.catalog import datafile
from qwen_rig.catalog.datafile import NULL_IS_EMPTY, Flag, MaybeTexts, PatternText, Text, Texts, Whole, one_of, wrong
from qwen_rig.frozen import frozen

DATA = datafile.DATA / "doctor"
FILES = ("driver", "gpu", "nccl", "cuda", "python", "packages", "host", "network")
TABLES = ("xid", "cuda", "nvml", "nccl", "exits", "aer")
PLACES = ("container", "vm", "wsl", "bare_metal")


@frozen
class When:
    """One alternative of a row."""

    says: re.Pattern[str] | None
    near: re.Pattern[str] | None
    unless: re.Pattern[str] | None
    healed: re.Pattern[str] | None
    facts: Mapping[str, tuple[Any, ...]]


@frozen
class Given:
    """A next step that asks for no log, as lines of that voice were given."""

    of: str
    next: str


@frozen
class Row:
    """One signature."""

    name: str
    of: frozenset[str]
    when: tuple[When, ...]
    cause: str
    next: str
    source: str
    captures: tuple[Mapping[str, Any], ...]
    over: tuple[str, ...] = ()
    reads: str | None = None
    general: bool = False
    symptom: bool = False
    places: Mapping[str, str] = field(default_factory=dict)
    given: Given | None = None
    refuted: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)


@frozen
class Voice:
    """A program or layer that writes lines, and how its lines are known."""

    name: str
    says: re.Pattern[str]


@frozen
class Code:
    """One code of a table. `means` and `next`: for people; `told_by`: the row that tells more, so that this one is
    silent; `harmless`: no failure by itself."""

    number: int | None
    name: str
    alias: str
    says: str
    means: str
    next: str
    grade: int
    told_by: str | None
    harmless: bool


@frozen
class Table:
    """Codes of one kind, with their source."""

    source: str
    codes: tuple[Code, ...]

    def find(self, number: str | None, name: str | None, says: str | None) -> Code | None:
        """The code with that number, name or sentence; None where the table has none."""
        for code in self.codes:
            if (number and str(code.number) == number) or (name and name in (code.name, code.alias)) or \
                    (says and code.says.rstrip(".").lower() == says.strip().rstrip(".").lower()):
                return code
        return None


@frozen
class _Alternative(datafile.Row):
    facts: dict[Text, Any] | None = None
    says: PatternText | None = None
    near: PatternText | None = None
    unless: PatternText | None = None
    healed: PatternText | None = None

    def when(self) -> When:
        def compiled(text: str | None) -> re.Pattern[str] | None:
            return re.compile(text, re.MULTILINE) if text else None
        return When(compiled(self.says), compiled(self.near), compiled(self.unless), compiled(self.healed),
                    _signs(self.facts))


def _signs(facts: Mapping[str, Any] | None) -> dict[str, tuple[Any, ...]]:
    return {sign: tuple(value) if isinstance(value, list) else (value,) for sign, value in (facts or {}).items()}


def _asks(row: _Alternative) -> _Alternative:
    if not row.facts and row.says is None:
        raise wrong("has neither says nor facts", "give it one of them")
    return row


@frozen
class _Capture(datafile.Row):
    text: Text | None = None
    facts: dict[Text, Any] | None = None
    made: Flag | None = None


@frozen
class _Given(datafile.Row):
    of: Text
    next: Text


@frozen
class _Entry(datafile.Row):
    name: Text
    cause: Text
    next: Text
    source: Text
    captures: tuple[_Capture, ...]
    of: MaybeTexts = ()
    when: Annotated[tuple[Annotated[_Alternative, AfterValidator(_asks)], ...], NULL_IS_EMPTY] = ()
    over: MaybeTexts = ()
    reads: Text | None = None
    general: Flag = False
    symptom: Flag = False
    places: dict[Annotated[Text, one_of(*PLACES)], Text] | None = None
    given: _Given | None = None
    refuted: dict[Text, Any] | None = None

    def row(self) -> Row:
        captures = tuple({key: value for key, value in vars(each).items() if value is not None}
                         for each in self.captures)
        return Row(self.name, frozenset(self.of), tuple(each.when() for each in self.when), self.cause, self.next,
                   self.source, captures, self.over, self.reads, self.general, self.symptom, self.places or {},
                   Given(self.given.of, self.given.next) if self.given else None, _signs(self.refuted))


@frozen
class SignaturesFile(datafile.Row):
    """The form of each file of FILES."""

    signatures: tuple[_Entry, ...]


@frozen
class _Voice(datafile.Row):
    name: Text
    says: PatternText


@frozen
class VoicesFile(datafile.Row):
    """The form of voices.yml."""

    voices: tuple[_Voice, ...]


@frozen
class _Code(datafile.Row):
    name: Text
    number: Whole | None = None
    alias: Text | None = None
    says: Text | None = None
    means: Text | None = None
    do: Text | None = None
    told_by: Text | None = None
    harmless: Flag = False


@frozen
class _Todo(datafile.Row):
    next: Text
    grade: Annotated[Whole, Field(ge=1, le=9)] = 5


@frozen
class CodesFile(datafile.Row):
    """The form of each file of codes/: `todo` names the next steps, `do` of a code one of them, and the steps' `grade`
    ranks several codes of one log (1 leads)."""

    source: Text
    todo: dict[Text, _Todo]
    codes: tuple[_Code, ...]


@frozen
class NamesFile(datafile.Row):
    """The form of names.yml: `distributions`: import → package; `classes`: a class → its package; `renamed`: what an
    argument, attribute or module became; `libraries`: whose names nobody
    else's code defines; `symbols`: the start of a symbol → the library that has it, and the next
    step; `nvcc_since`, `nvcc_until`: an architecture → the CUDA that knows it first, and the first that no longer
    does."""

    source: Text
    distributions: dict[Text, Text]
    renamed: dict[Text, Text]
    classes: dict[Text, Text]
    symbols: dict[Text, Text]
    libraries: Texts
    nvcc_since: dict[Text, Text]
    nvcc_until: dict[Text, Text]


def load(folder: Path = DATA) -> tuple[Row, ...]:
    """All rows, in the order in which equals are told. Raises RigError naming file and key."""
    return tuple(entry.row() for name in FILES
                 for entry in datafile.load(folder / f"{name}.yml", SignaturesFile).signatures)


def load_table(path: Path) -> Table:
    """A table of codes. Raises RigError naming file and key."""
    file = datafile.load(path, CodesFile)
    made = []
    for code in file.codes:
        todo = file.todo.get(code.do or "default") or _Todo("")
        means = code.means or code.says or code.name
        made.append(Code(code.number, code.name, code.alias or "", code.says or "", means, todo.next, todo.grade,
                         code.told_by, code.harmless))
    return Table(file.source, tuple(made))


@cache
def signatures() -> tuple[Row, ...]:
    """The package's own rows."""
    return load()


@cache
def voices() -> tuple[Voice, ...]:
    """Who may have said a line."""
    return tuple(Voice(each.name, re.compile(each.says)) for each in datafile.load(DATA / "voices.yml",
                                                                                  VoicesFile).voices)


@cache
def table(name: str) -> Table:
    """One of TABLES."""
    return load_table(DATA / "codes" / f"{name}.yml")


@cache
def names() -> NamesFile:
    """What packages, arguments and libraries are called."""
    return datafile.load(DATA / "names.yml", NamesFile)
