"""Quantities as people say them."""

from __future__ import annotations


def size(n: float) -> str:
    """Bytes as people say them, in powers of ten as download sizes are given."""
    for unit in ("B", "kB", "MB"):
        if n < 1000:
            return f"{n:.0f} {unit}"
        n /= 1000
    return f"{n:.1f} GB"
