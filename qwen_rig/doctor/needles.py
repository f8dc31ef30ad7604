"""The literals of which each match of a regular expression holds at least one: what makes a long log quick to search.

A literal is kept as `folded` keeps a line: in lower case, without digits. Pure.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

# The parser behind `re`, under the name that this Python has for it.
_parser: Any = importlib.import_module("re._parser" if sys.version_info >= (3, 11) else "sre_parse")
_DIGITS = {ord(digit): None for digit in "0123456789"}
SHORTEST = 3  # characters; a shorter literal stands in every other line


def folded(text: str) -> str:
    """A line's shape: lines that differ in digits and in case alone have one."""
    return text.translate(_DIGITS).lower()


def needles(pattern: str, flags: int = 0) -> frozenset[str]:
    """One of these is in every text that the pattern matches, folded; empty where there are none of use."""
    return _best(list(_parser.parse(pattern, flags)))


def _best(parts: list[Any]) -> frozenset[str]:
    """The rarest choice among what the parts, each of which must match, ask for: its shortest literal is longest."""
    choices, run = [], ""
    for kind, value in [*parts, (None, None)]:
        name = str(kind)
        if name == "LITERAL":
            run += chr(value)
            continue
        if name == "AT":
            continue
        choices.append(frozenset([folded(run)]))
        run = ""
        if name == "SUBPATTERN":
            choices.append(_best(list(value[-1])))
        elif name == "BRANCH":
            branches = [_best(list(branch)) for branch in value[1]]
            choices.append(frozenset().union(*branches) if all(branches) else frozenset())
        elif name in ("MAX_REPEAT", "MIN_REPEAT") and value[0] >= 1:
            choices.append(_best(list(value[2])))
    fit = [choice for choice in choices if choice and all(len(each.strip()) >= SHORTEST for each in choice)]
    return max(fit, key=lambda choice: min(map(len, choice)), default=frozenset())
