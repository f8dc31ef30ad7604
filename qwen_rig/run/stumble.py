"""An exception that nobody expected, met at work on one host: in a line for its card, in full for a log."""

from __future__ import annotations

import os
import re
import time
import traceback
from pathlib import Path

from qwen_rig import atomic, homes
from qwen_rig.errors import RigError
from qwen_rig.redaction import redacted

REMEDY = "the other hosts go on; this is a mistake of qwen-rig's: report it with the line above"
SECRET = re.compile("PASS|TOKEN|SECRET|_KEY$")
SHORTEST = 4  # letters of a secret: a shorter one stands in other words too
PACKAGE = Path(__file__).parents[1]


def told(error: BaseException) -> str:
    """`ValueError: no such thing (run/job.py:12)`: one line, with the last place in this package."""
    return f"{' '.join(f'{type(error).__name__}: {error}'.split())[:200]} ({place(error)})"


def place(error: BaseException) -> str:
    """Where in this package the exception came from; where it passed none of our files, the file that raised it."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.name != "contained"]
    ours = _ours(error)
    if not frames:
        return "nowhere"
    last = (ours or frames)[-1]
    name = Path(last.filename).relative_to(PACKAGE) if ours else Path(last.filename).name
    return f"{name}:{last.lineno}"


def _ours(error: BaseException) -> list[traceback.FrameSummary]:
    """The places in this package that the exception has passed."""
    return [frame for frame in traceback.extract_tb(error.__traceback__)
            if frame.name != "contained" and Path(frame.filename).is_relative_to(PACKAGE)]


def traced(error: BaseException) -> str:
    """The traceback; of a recursion without end, its two ends."""
    return "".join(traceback.format_exception(type(error), error, error.__traceback__))


def logs() -> Path:
    """Where logs go. Raises RigError where there is no such place."""
    return homes.cache() / "logs"


def safe(text: str) -> str:
    """The text without the secrets that could be in it: logins in addresses, what variables named so hold."""
    for name, value in os.environ.items():
        if len(value) >= SHORTEST and SECRET.search(name):
            text = text.replace(value, "***")
    return redacted(text)


def ended_by(error: BaseException, log: str) -> str:
    """The last line of a run that an exception ended which nobody expected, with the file that has the traceback; where
    the system refused something, that needn't be qwen-rig's mistake."""
    if isinstance(error, EOFError):  # of input() and getpass(): pyinfra asks for passwords, and whether to go on
        return "pyinfra asked for something, and nobody answers · standard input · run it in a terminal, or give -y " \
               "and name passwords in lab.yml: password_env, sudo_password_env"
    where = write(log, traced(error))
    kept = f" · the traceback: {where}" if where else ""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror} · {error.filename or 'standard output'}{kept}"
    if log == "pyinfra" and not _ours(error):
        return f"pyinfra can't go on: {told(error)} · the command · pyinfra --help shows how one is written{kept}"
    return (f"{told(error)} · this is a mistake of qwen-rig's: report it with this line"
            + (f" and {where}" if where else ""))


def of_file(error: Exception, file: str) -> RigError:
    """What to say of a file of the user's that Python can't run."""
    error = getattr(error, "exception", error)  # as pyinfra wraps it
    if isinstance(error, RigError):
        return error
    if isinstance(error, SyntaxError):
        at = f"{error.filename or file}:{error.lineno}" if error.lineno else error.filename or file
        return RigError(f"it is no Python: {error.msg}", at, "pyinfra takes inventories and deploys in Python")
    where = write("pyinfra", traced(error))
    return RigError(f"it can't be run: {told(error)}", file, "mend it" + (f"; the traceback: {where}" if where else ""))


def write(host: str, text: str) -> str:
    """Write a failure's log, for the user alone: it holds what a host said. Its path, or "" where it can't be."""
    text = safe(text)
    try:
        path = logs() / f"{time.strftime('%Y%m%d-%H%M%S')}-{host.replace('/', '_')}.log"
        atomic.write(path, text.encode("utf-8", "replace"), 0o600, 0o700)
    except (OSError, ValueError, RigError):
        return ""
    return str(path)
