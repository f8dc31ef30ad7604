"""Quantities as people say them."""

from __future__ import annotations


def size(n: float) -> str:
    """Bytes as people say them, in powers of ten as download sizes are given."""
    for unit in ("B", "kB", "MB"):
        if n < 1000:
            return f"{n:.0f} {unit}"
        n /= 1000
    return f"{n:.1f} GB"


def span(seconds: float) -> str:
    """A duration as people say it: `40 s`, `12 min`, `2 h 05 min`."""
    minutes = round(seconds / 60)
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
