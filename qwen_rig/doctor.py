"""The doctor: what a host said and what is known of it → named causes, each with one next step. Pure.

A signature is a row of qwen_rig/data/doctor/*.yml:
  name      what the cause is called
  when      alternatives, any of which is enough: {says: regular expression over the text}, {facts: {sign: value or
            list of values}}, or both together. The signs are those of `signs()`.
  over      more general rows that are not told where this one is
  cause, next   for people; {name} is a named group of the expression or a sign, nothing where there is none
  source    where the text and its meaning are from
  captures  texts on which the row fires, and no other, as the source has them (`made: true`: put together by us), or
            signs, as the probe gives them on such a host
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator

from qwen_rig.catalog import datafile
from qwen_rig.catalog.datafile import NULL_IS_EMPTY, Flag, MaybeTexts, PatternText, Row, Text, wrong
from qwen_rig.catalog.rules import Rules, load_rules
from qwen_rig.facts.state import State
from qwen_rig.plan.context import Gpu, gpus_of

DATA = datafile.DATA / "doctor"
FILES = ("host", "packages", "driver", "python", "network")  # in this order they are told


@dataclass(frozen=True)
class When:
    """One alternative of a row."""

    says: re.Pattern[str] | None
    facts: Mapping[str, tuple[Any, ...]]


@dataclass(frozen=True)
class Signature:
    """One row."""

    name: str
    when: tuple[When, ...]
    over: tuple[str, ...]
    cause: str
    next: str
    source: str
    captures: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True)
class Finding:
    """A named cause. `evidence` is the line of the text that tells it; '' where facts alone do."""

    name: str
    cause: str
    next: str
    source: str
    evidence: str


@dataclass(frozen=True)
class _Alternative(Row):
    facts: dict[Text, Any] | None = None
    says: PatternText | None = None

    def when(self) -> When:
        facts = {sign: tuple(value) if isinstance(value, list) else (value,)
                 for sign, value in (self.facts or {}).items()}
        return When(re.compile(self.says, re.MULTILINE) if self.says else None, facts)


def _asks(row: _Alternative) -> _Alternative:
    if not row.facts and row.says is None:
        raise wrong("has neither says nor facts", "give it one of them")
    return row


@dataclass(frozen=True)
class _Capture(Row):
    text: Text | None = None
    facts: dict[Text, Any] | None = None
    made: Flag | None = None


@dataclass(frozen=True)
class _Entry(Row):
    name: Text
    cause: Text
    next: Text
    source: Text
    captures: tuple[_Capture, ...]
    when: Annotated[tuple[Annotated[_Alternative, AfterValidator(_asks)], ...], NULL_IS_EMPTY] = ()
    over: MaybeTexts = ()


@dataclass(frozen=True)
class SignaturesFile(Row):
    """The form of each file of qwen_rig/data/doctor/."""

    signatures: tuple[_Entry, ...]


def load(folder: Path = DATA) -> tuple[Signature, ...]:
    """All rows, in the order in which they are told. Raises RigError naming file and key."""
    return tuple(Signature(row.name, tuple(each.when() for each in row.when), row.over, row.cause, row.next, row.source,
                           tuple({key: value for key, value in vars(each).items() if value is not None}
                                 for each in row.captures))
                 for name in FILES
                 for row in datafile.load(folder / f"{name}.yml", SignaturesFile).signatures)


signatures = cache(load)


def signs(state: State, rules: Rules | None = None) -> dict[str, Any]:
    """What the rows' `facts` may ask about, out of a host's state (facts.state.State), flat."""
    rules = rules or load_rules()
    machine, driver, upgrade = state.machine, state.driver, state.driver_upgrade
    gpus: tuple[Gpu, ...] = gpus_of(state, rules)
    moved = next(iter(upgrade.packages.items()), None) if upgrade else None
    return {
        "driver_error": driver.error,
        "driver_flavour": driver.flavour or driver.installed_flavour,
        "loaded": driver.loaded_version, "installed": driver.installed_version,
        "nouveau": driver.nouveau_loaded,
        "kind": machine.kind, "secure_boot": machine.secure_boot, "headers": machine.headers,
        "kernel": machine.kernel, "dkms": machine.tools.dkms,
        "prebuilt": any(name.startswith("linux-modules-nvidia-") for name in state.dpkg),
        "needs_open": any(rules.flavour(gpu.compute_capability) == "open" for gpu in gpus),
        "upgraded_unattended": upgrade is not None,
        "upgraded": f"{moved[0]} {moved[1][0]} → {moved[1][1]}, {upgrade.when}" if upgrade and moved else None,
    }


def words(state: State) -> list[str]:
    """What the host's own state says in words: nvidia-smi's failure and the kernel log's lines."""
    return [*filter(None, [state.driver.excerpt]), *state.kernel_log.lines]


def findings(said: Iterable[str], known: Mapping[str, Any] | None = None, own: Iterable[str] = (),
             alone: bool = True) -> tuple[Finding, ...]:
    """The causes that what was `said` tells, sharpened by what is `known` (signs) and by the host's `own` words.

    Where nothing that was said tells a cause: those that the facts and the host's own words tell `alone`.
    """
    text, known = "\n".join(said), known or {}
    told = {row.name: found for row in signatures() if (found := _fires(row, text, known, True)) is not None}
    more = {row.name: found for row in signatures() if row.name not in told
            and (found := _fires(row, "\n".join(own), known, False)) is not None}
    chosen = told | {row.name: more[row.name] for row in signatures() if row.name in more
                     and (set(row.over) & told.keys() if told or not alone else True)}
    hidden = {name for row in signatures() if row.name in chosen for name in row.over}
    return tuple(chosen[row.name] for row in signatures() if row.name in chosen and row.name not in hidden)


def diagnose(said: Iterable[str], state: State | None = None, alone: bool = False) -> Finding | None:
    """The first cause of a failure on a host whose state, where there is one, was last known as `state`.

    `alone`: the state is of now, and may tell the cause where the words don't. None: not known.
    """
    found = findings(said, signs(state), words(state), alone) if state else findings(said)
    return found[0] if found else None


def _fires(row: Signature, text: str, known: Mapping[str, Any], need_text: bool) -> Finding | None:
    """What the row finds, or None. `need_text`: alternatives of facts alone don't count."""
    for when in row.when:
        if when.says is None and need_text:
            continue
        match = when.says.search(text) if when.says else None
        if (when.says and not match) or any(known.get(sign) not in values for sign, values in when.facts.items()):
            continue
        groups = {key: value or "" for key, value in match.groupdict().items()} if match else {}
        fill = _Words({**{key: value for key, value in known.items() if value is not None}, **groups})
        return Finding(row.name, _filled(row.cause, fill), _filled(row.next, fill), row.source,
                       _line(text, match) if match else "")
    return None


def _line(text: str, match: re.Match[str]) -> str:
    begin, end = text.rfind("\n", 0, match.start()) + 1, text.find("\n", match.start())
    return text[begin:end if end >= 0 else len(text)].strip()


class _Words(dict[str, Any]):
    def __missing__(self, key: str) -> str:
        return ""


def _filled(text: str, fill: _Words) -> str:
    return re.sub(r" +(?=[ ,.;:)]|$)|\(\)", "", text.format_map(fill)).strip()
