"""A command in words for people: what would run with -v, what ran on a failure's card and in its log, what is next."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection
from typing import Any

from qwen_rig.redaction import redacted

# Our own verbs that read an inventory, and the words after one, as text that people may copy has them.
OURS = re.compile(r"\bqwen-rig (?:plan|apply|certify|explain|diff|undo|doctor|fits|train|remove|launch|verify)\b"
                  r"((?: [^\s`;|<,()]+)*)")


def with_inventory(text: str, inventory: str | None, hosts: Collection[str]) -> str:
    """The text, each of our commands for one of these hosts with the `-i` that this run was given: copied without, it
    would look for the host in another inventory."""
    def whole(found: re.Match[str]) -> str:
        words = found[1].split()
        named = any(word in hosts for word in words) and "-i" not in words
        return f"{found[0]} -i {shlex.quote(str(inventory))}" if named else found[0]

    return OURS.sub(whole, text) if inventory else text


def shown(command: Any, whole: bool = True) -> str:
    """The shell's as it would run, secrets masked; a program by name, arguments and text, or not `whole` without its
    text; a job likewise, or not `whole` by its name; our function by its docstring's words, as its arguments are
    the host's whole state."""
    if job := getattr(command, "job", None):
        said = f"(as a job, key {job.key[:12]}) {job.call}\n{job.call.program.text}"
        return redacted(said) if whole else repr(command)
    if call := getattr(command, "call", None):
        return redacted(f"{command.limit} {call}" + (f"\n{call.program.text}" if whole else ""))
    if function := getattr(command, "function", None):
        doc = (function.__doc__ or "").strip().splitlines()
        return f"(from here) {doc[0] if doc else function.__name__}"
    masked = getattr(command, "get_masked_value", None)
    return redacted(masked() if masked else str(command))
