"""Small files written into a host's folder."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain

from qwen_rig.program import Call, load

WAIT_S = 30  # for another run that writes there, which takes milliseconds
WRITE = load("deploy/training/write.sh")


def written(folder: str, texts: Mapping[str, str], piped: str = "") -> Call:
    """The program that writes files into a folder, each whole or not at all, and by one run at a time.

    `piped`: the name of one more file, whose text comes on standard input.
    """
    return WRITE(*chain.from_iterable(texts.items()), folder=folder, wait_s=str(WAIT_S), piped=piped)
