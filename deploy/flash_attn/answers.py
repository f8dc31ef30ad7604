"""What the programs of flash-attn's attempt say, as typed data: a host's word, so each value has its type, or none.

Pure. attention.py tells of the rungs that it tried, flash_build.py of a build.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from qwen_rig import strictjson

LAST = 20  # lines of a failure that are kept
LONG = 1000  # characters of one sentence
TRIED = 50  # rungs; a plan has a handful
SHA256 = re.compile(r"[0-9a-f]{64}")


def proven(lines: Sequence[str]) -> dict[str, Any] | None:
    """attention.py's record, its last line; None where that is none."""
    raw = _last(lines)
    if raw is None or not isinstance(raw.get("rung"), str) or not isinstance(raw.get("tried"), list):
        return None
    built = raw.get("built")
    return {
        "rung": raw["rung"], "why": _text(raw, "why"), "version": _text(raw, "version"), "sha256": _sha256(raw),
        "archs": _texts(raw, "archs"), "minutes": _number(raw, "minutes"), "proof": _proof(raw.get("proof")),
        "speed": _text(raw, "speed")[:LONG],
        "built": _built_by(built) if isinstance(built, dict) else None,
        "tried": [_row(row) for row in raw["tried"][:TRIED] if isinstance(row, dict)],
    }


def built(lines: Sequence[str]) -> dict[str, Any] | None:
    """flash_build.py's record, its last line; None where that is none. Of one that is `ok`, wheel and sha256 are
    there."""
    raw = _last(lines)
    if raw is None or not isinstance(raw.get("ok"), bool):
        return None
    if raw["ok"] and not (_sha256(raw) and _text(raw, "wheel")):
        return None
    return {**raw, "why": _text(raw, "why"), "last": _texts(raw, "last")[-LAST:], "minutes": _number(raw, "minutes"),
            "begun": raw.get("begun") is True, "wheel": _text(raw, "wheel"), "sha256": _sha256(raw)}


def _last(lines: Sequence[str]) -> dict[str, Any] | None:
    return strictjson.mapping(lines[-1]) if lines else None


def _row(raw: dict[str, Any]) -> dict[str, Any]:
    """One rung that was tried; `why_not` None: it holds."""
    row: dict[str, Any] = {"rung": _text(raw, "rung"), "sha256": _sha256(raw), "minutes": _number(raw, "minutes"),
                           "why_not": None if raw.get("why_not") is None else str(raw["why_not"])[:LONG],
                           "last": _texts(raw, "last")[-LAST:]}
    row |= {key: said for key in ("wheel", "source", "version") if (said := _text(raw, key))}
    row |= {"archs": _texts(raw, "archs")} if "archs" in raw else {}
    row |= {"proof": _proof(raw["proof"])} if "proof" in raw else {}
    return row | ({"built": _built_by(raw["built"])} if isinstance(raw.get("built"), dict) else {})


def _built_by(raw: dict[str, Any]) -> dict[str, Any]:
    """Who built a wheel, and how."""
    return {"host": _text(raw, "host"), "minutes": _number(raw, "minutes"), "jobs": _number(raw, "jobs")}


def _proof(raw: Any) -> dict[str, Any]:
    """The check's figures."""
    return {key: each for key, each in raw.items() if isinstance(each, (str, int, float))} \
        if isinstance(raw, dict) else {}


def _text(raw: dict[str, Any], key: str) -> str:
    found = raw.get(key)
    return found if isinstance(found, str) else ""


def _texts(raw: dict[str, Any], key: str) -> list[str]:
    found = raw.get(key)
    return [each for each in found if isinstance(each, str)] if isinstance(found, list) else []


def _number(raw: dict[str, Any], key: str) -> float:
    return found if isinstance(found := raw.get(key), (int, float)) and found >= 0 else 0.0


def _sha256(raw: dict[str, Any]) -> str | None:
    found = _text(raw, "sha256")
    return found if SHA256.fullmatch(found) else None
