"""Cells as types: a cell in which a tool has no value to give is None. Pure: knows no pyinfra."""

from __future__ import annotations

from typing import Annotated, Any

from packaging.version import Version

from qwen_rig.catalog.marks import After, Before
from qwen_rig.facts._smi import value


def _cell(raw: Any) -> Any:
    return value(raw) if isinstance(raw, str) else raw


def _count(number: int) -> int:
    if not 0 <= number < 2 ** 53:
        raise ValueError("no number of things")
    return number


def _release(text: str) -> str:
    Version(text)  # raises a ValueError
    return text


Cell = Annotated[str | None, Before(_cell)]
Number = Annotated[Annotated[int, After(_count)] | None, Before(_cell)]  # of things: below 0 is none
Flag = Annotated[bool | None, Before(_cell)]
Release = Annotated[Annotated[str, After(_release)] | None, Before(_cell)]  # can be compared
