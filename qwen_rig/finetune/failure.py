"""What a failed training said of its failure, told apart from what its launcher (torchrun, accelerate) adds. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

from qwen_rig.tracebacks import BEGINS, CHAINED

OWN = ("train_qwen.py: ", "qwen-rig: ")  # our programs' own word for a cause
# torch's elastic agent writes by glog: W1129 17:03:39.103000 17652 torch/distributed/run.py:774] …
AGENT = re.compile(r"[IWE]\d{4} [\d:.]+ \d+ (?:\S*/)?torch/(?:distributed|multiprocessing)/\S+\] ?")
TEARDOWN = re.compile(r"\[rank\d+\]:\s?\[W\d{4} .*destroy_process_group\(\) was not called")
OLDER = re.compile(r"(?:ERROR|WARNING|INFO):torch\.distributed\.(?:elastic|run|launcher)")  # torch before 2.1
THREADS = "Setting OMP_NUM_THREADS environment variable"
# What ends the launcher's traceback: its children's failure, never one of its own.
PASSED_ON = re.compile(r"(?:torch\.distributed\.elastic\.multiprocessing\.\S+\.(?:ChildFailedError|SignalException)"
                       r"|subprocess\.CalledProcessError: Command '\[.*train_qwen\.py)")
FRAME = re.compile(r"\s|$")
RULE = re.compile(r"={20,}|-{20,}|\*{20,}")
RANK = re.compile(r"\[rank(\d+)\]:\s?")
RAISED = re.compile(r"(?:[A-Za-z_]\w*\.)*[A-Z]\w*(?:Error|Exception|Interrupt|Exit|Warning)(?::.*)?")
LONGEST = 300


def trainer(lines: Sequence[str]) -> list[str]:
    """The lines without the launcher's; all of them where the launcher alone spoke, as of a rank that was killed."""
    kept: list[str] = []
    at = 0
    while at < len(lines):
        after = _launcher(lines, at)
        if after == at:
            kept.append(lines[at])
            after += 1
        at = after
    return kept if any(line.strip() for line in kept) else list(lines)


def _launcher(lines: Sequence[str], at: int) -> int:
    """The end of what the launcher says from `at` on; `at` where that line is the training's."""
    line = lines[at]
    if AGENT.match(line) or TEARDOWN.match(line) or OLDER.match(line) or line.startswith(THREADS):
        return at + 1
    if line == BEGINS:
        end = next((n for n in range(at + 1, len(lines)) if not FRAME.match(lines[n])), len(lines))
        return end + 1 if end < len(lines) and PASSED_ON.match(lines[end]) else at
    if RULE.fullmatch(line):
        following = lines[at + 1] if at + 1 < len(lines) else ""
        if following.endswith(" FAILED"):
            closed = (n for n in range(at + 1, len(lines)) if lines[n].startswith("=" * 20))
            return next(closed, len(lines) - 1) + 1
        beside = following.startswith(THREADS) or (at > 0 and lines[at - 1].startswith(THREADS))
        return at + 1 if beside else at
    return at


def first(lines: Sequence[str]) -> tuple[int | None, int]:
    """(the rank whose failure the launcher saw first, its exit code) by its summary; (None, 0) without one."""
    begun = next((n for n, line in enumerate(lines) if line.startswith("Root Cause")), len(lines))
    found: dict[str, int] = {}
    for line in lines[begun:]:
        if match := re.match(r"\s+(rank|exitcode)\s+: (-?\d{1,6})\b", line):
            found.setdefault(match[1], int(match[2]))
    return found.get("rank"), found.get("exitcode", 0)


def cause(lines: Sequence[str]) -> str:
    """The one line that says why: our programs' own word, else the exception that ended the training, of several
    processes that of the one which failed first; "" where none is told."""
    said = trainer(lines)
    own = next((line for line in reversed(said) if line.startswith(OWN)), "")
    if own:
        return own.partition(": ")[2][:LONGEST]
    root, code = first(lines)
    ranked = [line for line in said if (match := RANK.match(line)) and int(match[1]) == root]
    plain = [RANK.sub("", line, count=1) for line in ranked or said]
    raised = [line for n, line in enumerate(plain) if RAISED.fullmatch(line) and not PASSED_ON.match(line)
              and not _goes_on(plain, n)]
    if not raised:
        return f"the process of rank {root} was ended by signal {-code}" if code < 0 else ""
    return raised[0 if root is not None and not ranked else -1][:LONGEST]


def _goes_on(lines: Sequence[str], at: int) -> bool:
    """Whether the exception at a line led to another, which is told below it."""
    return any(line.startswith(CHAINED) for line in lines[at + 1: at + 4])
