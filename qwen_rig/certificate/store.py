"""Where certificates are kept: on the controller, $XDG_STATE_HOME/qwen-rig/certificates/UUID/TIME.json, one a run."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from time import gmtime, strftime

from qwen_rig import atomic
from qwen_rig.certificate.model import Certificate, load
from qwen_rig.errors import RigError
from qwen_rig.ledger import folder as state
from qwen_rig.training import LargestBatch

UUID = re.compile(r"[A-Za-z0-9-]{4,80}")


def folder() -> Path:
    """Where they are."""
    return state() / "certificates"


def keep(certificate: Certificate) -> Path | None:
    """Write it down; None for a host without a card. Raises RigError where the disk takes none."""
    if certificate.uuid is None:
        return None
    if not UUID.fullmatch(certificate.uuid):
        raise RigError(f"the host calls its GPU {certificate.uuid!r}, which is no UUID", certificate.host)
    path = folder() / certificate.uuid / f"{strftime('%Y%m%dT%H%M%SZ', gmtime(certificate.began))}.json"
    try:
        text = json.dumps(certificate.to_json(), indent=1, ensure_ascii=False, allow_nan=False)
        atomic.write(path, text + "\n", folder_mode=0o777)
    except OSError as error:
        raise RigError(f"the certificate can't be kept: {error.strerror}", str(path),
                       "set XDG_STATE_HOME to a folder that can be written") from None
    return path


def history(uuid: str) -> list[Path]:
    """Paths of one card's certificates, oldest first."""
    return sorted((folder() / uuid).glob("*.json"))


def last(uuid: str, before: int | None = None) -> Certificate | None:
    """The newest certificate of a card (begun before that time), None where there is none. A damaged one is skipped."""
    for path in reversed(history(uuid)):
        try:
            found = load(path)
        except RigError:
            continue
        if before is None or found.began < before:
            return found
    return None


def largest_batch(uuids: Iterable[str]) -> LargestBatch | None:
    """The smallest of these cards' largest batches, each by the newest certificate that measured one; None where none
    did. A card of the testbed's (EMULATED) measures nothing."""
    found = []
    for uuid in uuids:
        for path in reversed(history(uuid)) if UUID.fullmatch(uuid) else ():
            try:
                made = load(path)
            except RigError:
                continue
            check = made.check("largest_batch")
            if check and check.numbers and not made.emulated:
                found.append(LargestBatch(int(check.numbers[0].value), uuid,
                                          strftime("%Y-%m-%d", gmtime(made.began))))
                break
    return min(found, key=lambda one: one.batch, default=None)


def cards() -> list[str]:
    """UUIDs of all cards that have a certificate."""
    return sorted(path.name for path in folder().glob("*") if path.is_dir() and history(path.name))


def find(wanted: str) -> list[Path]:
    """One card's certificates by its UUID, the beginning of it, or its host's name (where that has one card only).

    Raises RigError, one line, where there is none or more than one card.
    """
    known = cards()
    matches = [uuid for uuid in known if uuid == wanted or uuid.removeprefix("GPU-").startswith(
        wanted.removeprefix("GPU-"))]
    if not matches:
        matches = [uuid for uuid in known if (newest := last(uuid)) and newest.host == wanted]
    if len(matches) > 1:
        raise RigError(f"{wanted} means {len(matches)} cards: {', '.join(matches)}", "", "give more of the UUID")
    if not matches:
        have = f"there are certificates of {', '.join(known[:4])}" + (" …" if len(known) > 4 else "")
        raise RigError(f"there is no certificate of {wanted}", str(folder()),
                       have if known else "take one: qwen-rig certify")
    return history(matches[0])


def open_(wanted: str) -> Certificate:
    """A certificate by its file, else the newest of the card that `find` finds. Raises RigError."""
    if wanted.endswith(".json") or "/" in wanted:
        return load(Path(wanted))
    return load(find(wanted)[-1])
