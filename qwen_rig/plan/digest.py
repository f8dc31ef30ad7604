"""A short fingerprint of plain data. Records on hosts hold such fingerprints: its form must not change."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def digest(thing: Any) -> str:
    """A short fingerprint of plain data."""
    return hashlib.sha256(json.dumps(thing, sort_keys=True).encode()).hexdigest()[:16]
