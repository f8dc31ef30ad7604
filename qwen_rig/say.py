"""Plain lines for people and JSON for programs: the only prints of the package, each made fit for a terminal."""

from __future__ import annotations

import json
import sys
from typing import Any

from qwen_rig import hosttext


def out(text: object = "") -> None:
    """A line (or several) on standard output: what was asked to be told."""
    print(hosttext.shown(str(text)))


def err(text: object = "", end: str = "\n") -> None:
    """A line (or several) on standard error: all else."""
    print(hosttext.shown(str(text)), file=sys.stderr, end=end, flush=True)


def as_json(found: Any) -> None:
    """A value as JSON on standard output."""
    print(json.dumps(hosttext.value(found), indent=1, ensure_ascii=False))
