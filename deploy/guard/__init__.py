"""Keeps nouveau out, and the driver's upgrades deliberate."""

from __future__ import annotations

from qwen_rig.managed import GUARD, NOVA


def watches() -> tuple[str, ...]:
    """The paths whose state the probe brings."""
    return (*GUARD, *NOVA)
