"""A duration as people say it. Pure."""

from __future__ import annotations


def span(seconds: float) -> str:
    """`40 s`, `12 min`, `2 h 05 min`."""
    minutes = round(seconds / 60)
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
