"""Python's tracebacks in what a program said, folded to the exceptions that they end with. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

BEGINS = "Traceback (most recent call last):"
PREFIX = re.compile(r"\[rank\d+\]:\s?|\s*[|+] ?-*")  # torch's, and those of a group of exceptions
CHAINED = ("The above exception was the direct cause", "During handling of the above exception")


def folded(lines: Sequence[str]) -> list[str]:
    """The lines without the frames of tracebacks: an exception's own line stays, as does what is no traceback."""
    kept: list[str] = []
    within = False
    for line in lines:
        bare = PREFIX.sub("", line, count=1)
        if bare.endswith(BEGINS):
            within = True
        elif within and bare[:1] in ("", " ", "\t"):
            pass
        elif bare.startswith(CHAINED):
            within = True
            while kept and not PREFIX.sub("", kept[-1], count=1).strip():
                kept.pop()
        else:
            within = False
            kept.append(line)
    return kept
