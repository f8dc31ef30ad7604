"""Configures NVIDIA's apt repository."""

from __future__ import annotations

from qwen_rig.catalog.rules import load_rules
from qwen_rig.managed import PREFERENCES, REPOSITORY


def watches() -> tuple[str, ...]:
    """The paths whose state the probe brings: ours, and NVIDIA's own list on each distribution that we know."""
    theirs = (f"/etc/apt/sources.list.d/cuda-{folder}-x86_64.list" for folder in load_rules().drivers)
    return (REPOSITORY, PREFERENCES, *theirs)
