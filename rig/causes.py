"""Likely causes of failures by what a host said: signatures as data (rig/data/causes.yml), first match wins. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from importlib.resources import files

import yaml


@cache
def _signatures() -> tuple[tuple[re.Pattern[str], str], ...]:
    rows = yaml.safe_load((files("rig.data") / "causes.yml").read_text())["causes"]
    return tuple((re.compile(row["says"]), row["remedy"]) for row in rows)


def diagnose(lines: Iterable[str]) -> str:
    """The remedy for the first signature that these lines carry, its {1} filled in; '' where none is known."""
    text = "\n".join(lines)
    for pattern, remedy in _signatures():
        if found := pattern.search(text):
            return remedy.format(found.group(0), *(group or "?" for group in found.groups()))
    return ""
