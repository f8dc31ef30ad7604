"""JSON that a stranger wrote, read in one way: a value that all of Python can deal with, or why there is none. Pure.

json.loads alone takes NaN and infinity, numbers of any length, one key twice, half a surrogate pair (which no file and
no terminal takes), and raises RecursionError for what is nested deep.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

from qwen_rig import hosttext
from qwen_rig.errors import RigError

LARGEST = 256 * 1024  # letters of one record: ours have a few thousand
DEEPEST = 32  # levels: ours have six; copying and comparing recurse, and Python's own limit is 1000
WIDEST = 2 ** 63  # no number that is counted here reaches it
_AT = re.compile(r": line (\d+) column \d+ \(char \d+\)$")  # json's own words
_HALF = re.compile("[\ud800-\udfff]")


def parse(text: str, largest: int = LARGEST, measured: bool = False) -> tuple[Any, str | None]:
    """What the text holds, its texts fit to be shown (hosttext), and None; else None, and why it isn't read. Never
    raises.

    NaN and infinity, which Python writes though JSON has neither, are None; `measured`: those numbers, for who judges
    them.
    """
    if len(text) > largest:
        return None, f"longer than {largest} letters"
    try:
        value = json.loads(text, parse_constant=float if measured else _unknown,
                           parse_float=float if measured else _float, parse_int=_int, object_pairs_hook=_object)
    except RecursionError:
        return None, "nested too deep"
    except ValueError as error:
        return None, " ".join(str(error).split())[:200]
    return (None, why) if (why := _unsound(value)) else (hosttext.value(value), None)


def read(text: str, where: str, remedy: str, largest: int = LARGEST, what: str = "can't be read as JSON") -> Any:
    """What a file or an answer holds. Raises RigError, one line with the line in it, where that isn't taken."""
    value, why = parse(text, largest)
    if why is None:
        return value
    at = _AT.search(why)
    raise RigError(f"{what}: {_AT.sub('', why)}", f"{where}:{at[1]}" if at else where, remedy)


def mapping(text: str, largest: int = LARGEST) -> dict[str, Any] | None:
    """The JSON object that the text holds; None where it holds none."""
    value, _ = parse(text, largest)
    return value if isinstance(value, dict) else None


def _unknown(name: str) -> None:
    return None


def _float(text: str) -> float | None:
    return value if math.isfinite(value := float(text)) else None


def _int(text: str) -> int:
    if len(text) > 20 or not -WIDEST <= (value := int(text)) < WIDEST:
        raise ValueError("a number out of range")
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("one key stands there twice")
    return found


def _unsound(value: Any) -> str | None:
    """Why a value isn't taken, though it is JSON. Without recursion."""
    left = [(value, 1)]
    while left:
        at, depth = left.pop()
        if depth > DEEPEST:
            return "nested too deep"
        if isinstance(at, str) and _HALF.search(at):
            return "half a surrogate pair"
        if isinstance(at, dict):
            left += [(each, depth + 1) for pair in at.items() for each in pair]
        elif isinstance(at, list):
            left += [(each, depth + 1) for each in at]
    return None
