"""The env's Python and pip: the files of which we hold a sha256, or the word that they aren't pinned. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

from qwen_rig import bundle
from qwen_rig.catalog.conda_lock import PACKAGE, CondaFile, load_conda_lock
from qwen_rig.catalog.sources import load_sources
from qwen_rig.plan.context import Context
from qwen_rig.plan.model import Refusal, Step

PINS = "`make pins` writes their sha256 into a file for conda_lock"


def conda_files(ctx: Context) -> tuple[CondaFile, ...]:
    """The files that conda is given, each to be checked first; nothing where conda itself chooses and checks.

    A bundle's manifest is such a lock: it was written on this machine when the bundle was made.
    """
    if ctx.knobs.bundle:
        rows = bundle.load(ctx.knobs.bundle).files
        return tuple(CondaFile(path.removeprefix("conda/"), row["sha256"], row["bytes"]) for path, row in rows.items()
                     if path.startswith("conda/") and PACKAGE.fullmatch(path.removeprefix("conda/"))
                     and re.fullmatch(r"[0-9a-f]{64}", str(row["sha256"])))
    return load_conda_lock(ctx.knobs.conda_lock).files(ctx.knobs.python)


def address(channel: str) -> str:
    """A channel's address, where it may be a name."""
    own = load_sources().source_conda_channel
    if "://" in channel:
        return channel.rstrip("/")
    return f"{own.measure.rstrip('/').rpartition('/')[0]}/{channel}"


def caveats(ctx: Context, steps: Sequence[Step]) -> list[str]:
    """That Python and pip aren't pinned, where they are to be fetched."""
    if not _fetched(steps) or conda_files(ctx):
        return []
    channel = ctx.knobs.source_conda_channel or load_sources().conda_channel
    by = "by plain http, so that anybody on the way can replace them" if channel.startswith("http://") else \
        "conda checks the channel's own sums"
    return [f"Python {ctx.knobs.python} and pip from {channel}: not pinned ({by}); {PINS}"]


def refusals(ctx: Context, steps: Sequence[Step]) -> list[Refusal]:
    """The same as a refusal, where the user has said that nothing unpinned is taken."""
    if ctx.knobs.accept_unpinned_python or not _fetched(steps) or conda_files(ctx):
        return []
    return [Refusal(f"Python {ctx.knobs.python} and pip: not pinned, and accept_unpinned_python is false", PINS)]


def _fetched(steps: Sequence[Step]) -> bool:
    return any(step.action.changes and "conda_channel" in step.fetches for step in steps)
