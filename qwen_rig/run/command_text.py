"""A command in words for people: what would run with -v, what ran on a failure's card and in its log."""

from __future__ import annotations

from typing import Any

from qwen_rig.redaction import redacted


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
