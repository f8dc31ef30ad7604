"""Text of a stranger's (a host's, a cloud's command line's, a file's that either made), made fit to be shown and read.

One function, `line`, through which every text passes where it comes in; the console (render.Console) has it pass again.
A terminal obeys control characters, and bidi ones make a line read as another: each is shown by its number instead.
Pure.
"""

from __future__ import annotations

import json
import re
from typing import Any

# Unicode's categories Cc (C0, C1), Cf (bidi, zero width, tags), Cs (halves of UTF-16), Zl and Zp (line ends); the tab
# is let through. tests/security/test_hosttext.py holds this against Python's own tables.
_UNSAFE = re.compile(
    "[\x00-\x08\x0a-\x1f\x7f-\x9f\xad\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u180e\u200b-\u200f"
    "\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff\ufff0-\ufffb\U000110bd\U000110cd\U00013430-\U0001343f"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e007f]")
LINE = 1_000_000  # characters of a line that is read (a JSON record, a file in base64); far above any honest one
SHOWN = 2_000  # characters of a line that is shown


def line(text: str | bytes, most: int = LINE) -> str:
    """One line, without its end: what isn't UTF-8 as �, each control character by its number (JSON's `\\u001b`), cut
    after `most` characters. What is fit already comes back as it is."""
    if isinstance(text, bytes):
        text = text.decode("utf-8", "replace")
    text = text.rstrip("\r\n")
    if len(text) > most:
        text = f"{text[:most]}… ({len(text) - most} more)"
    return _UNSAFE.sub(_number, text)


def lines(text: str | bytes, most: int = LINE) -> str:
    """Several lines, each as `line` has it; the newlines stay, the last too."""
    if isinstance(text, bytes):
        text = text.decode("utf-8", "replace")
    if not _UNSAFE.search(text) and len(text) <= most:
        return text
    return "\n".join(line(each, most) for each in text.split("\n"))


def value(found: Any) -> Any:
    """What JSON gave, each text in it as `lines` has it, the keys too. JSON's own escapes hide control characters."""
    if isinstance(found, str):
        return lines(found)
    if isinstance(found, dict):
        return {value(key): value(each) for key, each in found.items()}
    return [value(each) for each in found] if isinstance(found, list) else found


def shown(text: str) -> str:
    """A text of any origin on its way to a terminal: its newlines stay, its lines are cut after SHOWN characters."""
    return lines(text, SHOWN)


def _number(found: re.Match[str]) -> str:
    return json.dumps(found[0])[1:-1]
