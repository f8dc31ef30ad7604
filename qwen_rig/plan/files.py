"""Unified diffs of the files that a step writes, without the secrets that a URL may carry. Pure."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from typing import Any

from qwen_rig.plan.context import Context
from qwen_rig.plan.model import FileChange
from qwen_rig.redaction import redacted


def unified(change: FileChange) -> str:
    """`diff -u` of the change; the text of a file that isn't there yet against /dev/null. '' where nothing differs."""
    before = redacted(change.before or "").splitlines(keepends=True)
    after = redacted(change.after).splitlines(keepends=True)
    old = "/dev/null" if change.before is None else change.path
    lines = [line if line.endswith("\n") else line + "\n" for line in difflib.unified_diff(before, after, old,
                                                                                             change.path)]
    return "".join(lines)


def managed(ctx: Context, wanted: Mapping[str, str]) -> tuple[FileChange, ...]:
    """The changes that make these files (path → text) true, by what the probe saw of them."""
    texts, digests = ctx.state.texts, ctx.state.files
    found = []
    for path, text in wanted.items():
        before = texts.get(path, "" if digests.get(path) else None)
        if before != text:
            found.append(FileChange(path, before, text))
    return tuple(found)


def as_json(path: str, before: Any, after: Any) -> tuple[FileChange, ...]:
    """The change of a JSON file as the steps write it; `before` {} or None where it isn't there."""
    change = FileChange(path, dumped(before) if before else None, dumped(after))
    return () if change.before == change.after else (change,)


def dumped(value: Any) -> str:
    """A record's text in a file."""
    return json.dumps(value, indent=1) + "\n"
