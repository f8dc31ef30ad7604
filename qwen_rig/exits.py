"""Exit statuses, the same for every verb. Where several would fit, the gravest counts, in the order of GRAVITY."""

from __future__ import annotations

from collections.abc import Iterable

OK = 0
FAILED = 1
CHANGES = 2
UNREACHABLE = 3
VERIFICATION = 4
INTERRUPTED = 130  # 128 + SIGINT, as shells say it

GRAVITY = (FAILED, VERIFICATION, UNREACHABLE, CHANGES, OK)
MEANING = """exit status:
  0  nothing to do, or done
  1  failed, refused, or bad input
  2  changes are pending (plan, diff)
  3  a host could not be reached
  4  the verification failed, or a gate of the certificate
  129, 130, 143  ended by a signal: SIGHUP, SIGINT (Ctrl-C), SIGTERM
Where several fit, the first of 1, 4, 3, 2 counts."""


def worst(found: Iterable[int]) -> int:
    """The gravest of these, OK where there are none."""
    seen = set(found)
    return next((status for status in GRAVITY if status in seen), OK)
