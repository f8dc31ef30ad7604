"""A row's texts, filled in, and the next step that fits the place and what was given. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from qwen_rig.doctor.forms import Row
from qwen_rig.doctor.log import Log

_OPTIONAL = re.compile(r"\[\?([^\[\]]*)\]")
_NAME = re.compile(r"\{(\w+)\}")
# How a log tells where it was written.
_PLACES = (
    ("wsl", re.compile(r"microsoft-standard-WSL|/usr/lib/wsl/|\bWSL2?\b")),
    ("container", re.compile(r"^(?:lxc|lxc-libvirt|docker|podman|systemd-nspawn|container-other)$|/\.dockerenv\b"
                             r"|root@[0-9a-f]{12}:|\bkubepods\b|RUNPOD_POD_ID|VAST_CONTAINERLABEL", re.MULTILINE)),
    ("vm", re.compile(r"^(?:kvm|qemu|vmware|microsoft|xen|oracle|amazon|google)$", re.MULTILINE)),
)


def place(log: Log, known: Mapping[str, Any]) -> str | None:
    """Where the trouble is: container, vm, wsl or bare_metal; None where neither facts nor words tell."""
    if known.get("kind") in ("container", "vm", "wsl", "bare_metal"):
        return str(known["kind"])
    text = "\n".join(log.lines[:5000])
    return next((name for name, says in _PLACES if says.search(text)), None)


def step(row: Row, where: str | None, given: bool) -> str:
    """The row's next step for that place; `given`: lines of the log that it would ask for are there."""
    if where and where in row.places:
        return row.places[where]
    return row.given.next if row.given and given else row.next


def filled(text: str, words: Mapping[str, Any]) -> str:
    """A text with its {names} filled in; a segment [?…] in which a name has no value is left out."""
    def segment(found: re.Match[str]) -> str:
        return found[1] if all(words.get(name) for name in _NAME.findall(found[1])) else ""

    return _NAME.sub(lambda found: str(words.get(found[1]) or "?"), _OPTIONAL.sub(segment, text))
