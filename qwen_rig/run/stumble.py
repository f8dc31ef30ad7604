"""An exception that nobody expected, met at work on one host: in a line for its card, in full for a log."""

from __future__ import annotations

import time
import traceback
from pathlib import Path

from qwen_rig import atomic

REMEDY = "the other hosts go on; this is a mistake of qwen-rig's: report it with the line above"
LOGS = Path.home() / ".cache" / "qwen-rig" / "logs"
PACKAGE = Path(__file__).parents[1]


def told(error: BaseException) -> str:
    """`ValueError: no such thing (run/job.py:12)`: one line, with the last place in this package."""
    return f"{' '.join(f'{type(error).__name__}: {error}'.split())[:200]} ({place(error)})"


def place(error: BaseException) -> str:
    """Where in this package the exception came from; where it passed none of ours, the file that raised it."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.name != "contained"]
    ours = [frame for frame in frames if Path(frame.filename).is_relative_to(PACKAGE)]
    if not frames:
        return "nowhere"
    last = (ours or frames)[-1]
    name = Path(last.filename).relative_to(PACKAGE) if ours else Path(last.filename).name
    return f"{name}:{last.lineno}"


def traced(error: BaseException) -> str:
    """The traceback; of a recursion without end, its two ends."""
    return "".join(traceback.format_exception(type(error), error, error.__traceback__))


def write(folder: Path, host: str, text: str) -> str:
    """Write a failure's log, for the user alone: it holds what a host said. Its path, or "" where it can't be."""
    path = folder / f"{time.strftime('%Y%m%d-%H%M%S')}-{host.replace('/', '_')}.log"
    try:
        atomic.write(path, text.encode("utf-8", "replace"), 0o600, 0o700)
    except OSError:
        return ""
    return str(path)
