"""Saved plans: a file that `rig plan --save` writes and `rig apply FILE` is held to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from qwen_rig import atomic, strictjson
from qwen_rig.errors import RigError
from qwen_rig.plan.document import FORM
from qwen_rig.plan.drift import sound
from qwen_rig.plan.model import Action
from qwen_rig.redaction import redacted

LARGEST = 64 << 20  # letters; a host has some twenty thousand


def save(path: Path, document: dict[str, Any]) -> None:
    """Write the document for the user alone. Raises RigError where it can't, or where it would hold a secret."""
    for pair in document["data"]:
        if redacted(pair) != pair:
            raise RigError(f"{pair.partition('=')[0]} holds a login, and a saved plan must hold none", "--data",
                           "put it in lab.yml")
    try:
        atomic.write(path, json.dumps(document, indent=1, ensure_ascii=False) + "\n", 0o600)
    except OSError as error:
        raise RigError(f"the plan can't be saved: {error.strerror}", str(path), "name another file") from None


def load(path: Path) -> dict[str, Any]:
    """A saved plan. Raises RigError where the file is none."""
    again = "save one: rig plan --save FILE"
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise RigError(f"the saved plan can't be read: {error.strerror}", str(path), again) from None
    except UnicodeDecodeError:
        raise RigError("this file is not a saved plan: it holds no UTF-8 text", str(path), again) from None
    found = strictjson.read(text, str(path), again, LARGEST, "this is no saved plan: no JSON")
    if not isinstance(found, dict) or found.get("form") != FORM:
        raise RigError(f"this file is not a saved plan of form {FORM}", str(path), again)
    hosts = found.get("hosts")
    texts = all(isinstance(found.get(key), str) for key in ("made", "inventory"))
    lists = all(isinstance(found.get(key), list) and all(isinstance(each, str) for each in found[key])
                for key in ("limit", "data"))
    if not texts or not lists or not isinstance(hosts, list) or not all(_sound(host) for host in hosts):
        raise RigError("this saved plan is damaged", str(path), again)
    return found


def _sound(host: Any) -> bool:
    """Whether a host's plan has all that qwen_rig.plan.drift.outdated reads."""
    return isinstance(host, dict) and isinstance(host.get("host"), str) \
        and isinstance(host.get("fingerprint"), str) and isinstance(host.get("state"), dict) and sound(host["state"]) \
        and isinstance(host.get("steps"), list) and all(_sound_step(step) for step in host["steps"])


def _sound_step(step: Any) -> bool:
    return isinstance(step, dict) and step.get("action") in [action.value for action in Action] \
        and all(isinstance(step.get(key), str) for key in ("component", "title", "now", "wanted")) \
        and isinstance(step.get("problems"), list) and all(isinstance(each, str) for each in step["problems"])
