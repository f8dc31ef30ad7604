"""Types of the verbs' options: what can't be is told by argparse, in one line."""

from __future__ import annotations

from argparse import ArgumentTypeError
from pathlib import Path

from qwen_rig import homes, values
from qwen_rig.errors import RigError


def path(text: str) -> Path:
    """A path on this machine, ~ written out."""
    try:
        return homes.expanded(text)
    except RigError as error:
        raise ArgumentTypeError(str(error)) from None


def whole(text: str) -> int:
    """A whole number above 0."""
    try:
        return values.whole(int(text) if text.isascii() and text.isdecimal() and len(text) < 20 else text)
    except values.Wrong as wrong:
        raise ArgumentTypeError(wrong.what) from None
