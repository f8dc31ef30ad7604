"""The doctor: what a host said and what is known of it → named causes, ranked, each with one next step. Pure.

A row speaks of lines of its own voices alone (forms.py). Each line is explained once, by the row that says most of it;
of several causes the most specific leads, and what follows from another is told with that one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import cache
from typing import Any

from qwen_rig.doctor import advice, languages
from qwen_rig.doctor.forms import Row, When, signatures, voices
from qwen_rig.doctor.log import Log
from qwen_rig.doctor.needles import needles
from qwen_rig.doctor.readers import READERS, Scene
from qwen_rig.doctor.signs import signs, words
from qwen_rig.facts.state import State
from qwen_rig.frozen import frozen

__all__ = ["Finding", "diagnose", "findings", "signs", "words"]

CAUSE, READ, SYMPTOM = 2, 4, 8  # grades of a row, of one with a reader, and of a symptom; 1 is the gravest code
FOLLOWS = 7  # from this grade on a finding is told as following from another, where there is one
SEVERAL = 12  # findings of one row with a reader (several Xids), at most


@frozen
class Finding:
    """A named cause. `evidence`: the line that tells it, '' where facts alone do, and `line` its number, from 1;
    `follows`: names of what follows from it; `against`: what the host's facts say against it, '' for nothing."""

    name: str
    cause: str
    next: str
    source: str
    evidence: str
    line: int | None = None
    grade: int = CAUSE
    follows: tuple[str, ...] = ()
    against: str = ""
    row: str = ""


def findings(said: Iterable[str], known: Mapping[str, Any] | None = None, own: Iterable[str] = (),
             alone: bool = True, speaker: str = "") -> tuple[Finding, ...]:
    """The causes that what was `said` tells, sharpened by what is `known` (signs) and by the host's `own` words; the
    likeliest first.

    Where nothing that was said tells a cause: those that the facts and the host's own words tell `alone`.
    `speaker`: who said the lines that tell nobody: `ours`, one of our steps; `link`, our connection; '' for a log.
    """
    known, rows = known or {}, signatures()
    told = _translated(Log(said, voices(), speaker), known, rows)
    names = {found.name for found in told}
    more = [found for found in [*_read(Log(own, voices()), known, rows), *_of_facts(known, rows)]
            if found.name not in names]
    if told or not alone:
        more = [found for found in more if _hides(found, names)]
    return _ranked([*told, *_unique(more)])


def diagnose(said: Iterable[str], state: State | None = None, alone: bool = False,
             link: bool = False) -> Finding | None:
    """The first cause of a failed step on a host whose state, where there is one, was last known as `state`.

    `alone`: the state is of now, and may tell the cause where the words don't. `link`: our connection failed, no step.
    None: not known.
    """
    speaker = "link" if link else "ours"
    found = findings(said, signs(state), words(state), alone, speaker) if state else findings(said, speaker=speaker)
    return found[0] if found else None


def _translated(log: Log, known: Mapping[str, Any], rows: tuple[Row, ...]) -> list[Finding]:
    """What the lines tell, in English by this machine's catalogues where one knows them: those that told something,
    which may tell more so; where that is nothing sure, any line."""
    told = _read(log, known, rows)
    sure = any(found.grade < FOLLOWS for found in told)
    asked = [found.line - 1 for found in told if found.line] if sure else range(min(len(log.lines), 20_000))
    turned = languages.english({at: log.core(at) for at in asked})
    if not turned:
        return told
    again = Log([turned.get(at, line) for at, line in enumerate(log.lines)], voices(), log.speaker)
    return [replace(found, evidence=log.lines[found.line - 1].strip()) if found.line else found
            for found in _read(again, known, rows)]


def _read(log: Log, known: Mapping[str, Any], rows: tuple[Row, ...]) -> list[Finding]:
    """What the lines tell, one finding a line: of rows that follow from no other of that line, the one of the lowest
    grade, among equals the first."""
    if not log.lines:
        return []
    where, asked = advice.place(log, known), dict[str, bool]()
    by_line: dict[int, list[Finding]] = {}
    counted: dict[str, set[str]] = {}
    for at, numbers in sorted(log.places(_watched()).items()):
        for number in sorted(numbers):
            row = rows[number]
            have = counted.setdefault(row.name, set())
            if len(have) >= (SEVERAL if row.reads else 1) or not log.is_of(at, row):
                continue
            given = asked.setdefault(row.name, row.given is not None and _gives(log, row.given.of, at))
            found = _fires(row, log, at, known, where, given)
            if found and found.name not in have:
                have.add(found.name)
                by_line.setdefault(at, []).append(found)
    plain = {row.name for row in rows if not row.reads and not row.symptom}
    return [min(_firsts(each), key=lambda found: (found.row not in plain, found.grade))
            for _, each in sorted(by_line.items())]


def _firsts(found: list[Finding]) -> list[Finding]:
    """Those that follow from no other of them."""
    return [each for each in found
            if not any(_hides(other, {each.name}) for other in found if other is not each)] or found


def _gives(log: Log, voice: str, at: int) -> bool:
    """Whether other lines of that voice were given beside this one."""
    near = range(max(0, at - 200), min(len(log.lines), at + 200))
    return sum(voice in log.claims(each) for each in near) > 1


def _of_facts(known: Mapping[str, Any], rows: tuple[Row, ...]) -> list[Finding]:
    """What the facts tell without any words."""
    made = []
    for row in rows:
        if any(when.says is None and _fits(when, known) for when in row.when):
            made.append(_finding(row, known, str(known.get("kind")), False, "", None))
    return made


def _fits(when: When, known: Mapping[str, Any]) -> bool:
    return all(known.get(sign) in values for sign, values in when.facts.items())


def _fires(row: Row, log: Log, at: int, known: Mapping[str, Any], where: str | None, given: bool) -> Finding | None:
    """What the row finds on that line, or None."""
    text, length = log.ahead(at), len(log.core(at))
    for when in row.when:
        match = when.says.search(text) if when.says else None
        if not match or match.start() > length or not _fits(when, known):
            continue
        if (when.near and not when.near.search(log.around(at))) or (when.unless and when.unless.search(log.around(at))):
            continue
        if when.healed and any(when.healed.search(line) for line in log.lines[at:]):
            continue
        groups = {key: value or "" for key, value in match.groupdict().items()}
        more = READERS[row.reads](Scene(log, at, groups, known)) if row.reads else {}
        if more is not None:
            return _finding(row, {**known, **groups, **more}, where, given, log.lines[at].strip(), at + 1, more)
    return None


def _finding(row: Row, fill: Mapping[str, Any], where: str | None, given: bool, evidence: str, line: int | None,
             more: Mapping[str, str] | None = None) -> Finding:
    more = more or {}
    grade = int(more.get("grade", SYMPTOM if row.symptom else READ if row.reads else CAUSE))
    against = [f"{sign} is {fill.get(sign)}" for sign, values in row.refuted.items() if fill.get(sign) in values]
    return Finding(more.get("name", row.name), advice.filled(more.get("cause") or row.cause, fill),
                   advice.filled(more["do"] if more.get("cause") and more.get("do") else advice.step(row, where, given),
                                 fill),
                   more.get("source", row.source), evidence, line, grade, (), ", ".join(against), row.name)


def _ranked(found: list[Finding]) -> tuple[Finding, ...]:
    """The findings, the likeliest first, each with what follows from it; what facts contradict comes last."""
    order = sorted(_unique(found), key=lambda each: (bool(each.against), each.grade, -(each.line is not None)))
    names, leads = {each.name for each in order}, []
    for each in order:
        hides = {other for other in names if other != each.name and _hides(each, {other})}
        leads.append(replace(each, follows=tuple(sorted(hides))))
    hidden = {name for each in leads for name in each.follows}
    top = [each for each in leads if each.name not in hidden]
    sure = [each for each in top if each.grade < FOLLOWS]
    late = [each for each in top if each.grade >= FOLLOWS]
    if sure:
        sure[0] = replace(sure[0], follows=(*sure[0].follows, *(each.name for each in late)))
        return tuple(sure)
    return (replace(late[0], follows=(*late[0].follows, *(each.name for each in late[1:]))),) if late else ()


def _unique(found: list[Finding]) -> list[Finding]:
    """The first finding of each name."""
    return list({each.name: each for each in reversed(found)}.values())[::-1]


def _hides(found: Finding, others: set[str]) -> set[str]:
    """Those of the others that follow from this finding."""
    return {other for other in others if any(fnmatchcase(other, pattern) for pattern in _over().get(found.row, ()))}


@cache
def _over() -> dict[str, tuple[str, ...]]:
    return {row.name: row.over for row in signatures()}


@cache
def _watched() -> dict[str, frozenset[int]]:
    """Needle → the rows of which a match holds it."""
    watched: dict[str, set[int]] = {}
    for number, row in enumerate(signatures()):
        for when in row.when:
            for needle in needles(when.says.pattern, when.says.flags) if when.says else ():
                watched.setdefault(needle, set()).add(number)
    return {needle: frozenset(numbers) for needle, numbers in watched.items()}
