"""Text without the secrets that a URL in it may carry."""

from __future__ import annotations

import re

_LOGIN = re.compile(r"(?<=://)[^/@\s]+(?=@)")


def redacted(text: str) -> str:
    """The same text, the user and password of any URL in it replaced by stars."""
    return _LOGIN.sub("***", text)
