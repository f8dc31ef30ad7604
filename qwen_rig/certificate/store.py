"""Where certificates are kept: on the controller, $XDG_STATE_HOME/qwen-rig/certificates/UUID/TIME-HOST.json, one a run.

A host may call its card what it likes, so each certificate counts for the host alone that it was taken of: HOST is a
digest of its name in the inventory and its host key. Release 0.2.0 wrote UUID/TIME.json, with the name alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from time import gmtime, strftime

from qwen_rig import atomic, homes
from qwen_rig.certificate.model import PEERS, PEERS_OFF, Certificate, load
from qwen_rig.domain import Identity
from qwen_rig.errors import RigError
from qwen_rig.fits import most
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
    who = Identity(certificate.host, "stated" if certificate.stated else certificate.host_key)
    name = f"{strftime('%Y%m%dT%H%M%SZ', gmtime(certificate.began))}-{who.digest}.json"
    path = folder() / certificate.uuid / name
    try:
        text = json.dumps(certificate.to_json(), indent=1, ensure_ascii=False, allow_nan=False)
        atomic.write(path, text + "\n", folder_mode=0o777)
    except OSError as error:
        raise RigError(f"the certificate can't be kept: {error.strerror}", str(path),
                       "set XDG_STATE_HOME to a folder that can be written") from None
    return path


def history(uuid: str, who: Identity | None = None) -> list[Path]:
    """Paths of one card's certificates, oldest first; of one host's alone where that is given."""
    paths = sorted((folder() / uuid).glob("*.json"))
    return paths if who is None else [path for path, made in _read(paths) if _counts_for(made, who)]


def _read(paths: list[Path]) -> Iterator[tuple[Path, Certificate]]:
    """Each file with its certificate; a damaged one is skipped."""
    for path in paths:
        with suppress(RigError):
            yield path, load(path)


def _counts_for(made: Certificate, who: Identity) -> bool:
    """Whether a certificate was taken of that host. One that holds no host key is of release 0.2.0, or was read in by
    the user under that name."""
    return made.host == who.name and made.host_key in (None, who.key)


def last(uuid: str, who: Identity, before: int | None = None) -> Certificate | None:
    """The newest certificate of a card in that host (begun before that time), None where there is none."""
    for _, found in _read(history(uuid)[::-1]):
        if _counts_for(found, who) and (before is None or found.began < before):
            return found
    return None


def before(made: Certificate) -> Certificate | None:
    """The certificate before that one, of the same card in the same host; None where there is none."""
    return last(made.uuid, made.identity, made.began) if made.uuid else None


def largest_batch(who: Identity, memory_mib: Mapping[str, int | None]) -> LargestBatch | None:
    """The smallest of these cards' largest batches (UUID → memory), each by the newest certificate of this very host
    that measured one; None where none did. A card of the testbed's (EMULATED) measures nothing, and a number beyond
    what the card's memory holds was not measured either."""
    found = [one for uuid, memory in memory_mib.items()
             if UUID.fullmatch(uuid) and (one := _measured(who, uuid, memory)) is not None]
    return min(found, key=lambda one: one.batch, default=None)


def _measured(who: Identity, uuid: str, memory_mib: int | None) -> LargestBatch | None:
    for _, made in _read(history(uuid)[::-1]):
        check = made.check("largest_batch")
        if check is None or not check.numbers or made.emulated or made.stated or not _counts_for(made, who):
            continue
        batch = check.numbers[0].value
        if batch == int(batch) and batch >= 0 and (memory_mib is None or batch <= most(memory_mib)):
            return LargestBatch(int(batch), uuid, strftime("%Y-%m-%d", gmtime(made.began)))
    return None


def peers_fail(who: Identity, uuids: Collection[str]) -> bool:
    """Whether NCCL's peer-to-peer between cards of that host fails, by each one's newest certificate with an
    all-reduce."""
    for uuid in filter(UUID.fullmatch, uuids):
        for _, made in _read(history(uuid)[::-1]):
            check = made.check("all_reduce")
            if check is None or not check.numbers or made.emulated or made.stated or not _counts_for(made, who):
                continue
            if check.facts.get(PEERS) == PEERS_OFF:
                return True
            break
    return False


def tflops(uuid: str, who: Identity) -> float | None:
    """The bf16 TFLOP/s that the newest certificate of this very host measured of a card; None where none did."""
    for _, made in _read(history(uuid)[::-1]) if UUID.fullmatch(uuid) else ():
        check = made.check("matmul")
        if check and check.numbers and not made.emulated and not made.stated and _counts_for(made, who):
            return next((number.value for number in check.numbers if number.label == "bf16" and number.value > 0), None)
    return None


def cards() -> list[str]:
    """UUIDs of all cards that have a certificate."""
    return sorted(path.name for path in folder().glob("*") if path.is_dir() and history(path.name))


def hosts(uuid: str) -> dict[str, Certificate]:
    """The hosts that have certificates of a card, by name, each with its newest."""
    return {made.host: made for _, made in _read(history(uuid))}


def find(wanted: str) -> Certificate:
    """The newest certificate of one card by its UUID, the beginning of it, or its host's name (where that has one card
    only). Raises RigError, one line, where there is none, more than one card, or more than one host of that card.
    """
    known = cards()
    uuids = [uuid for uuid in known if uuid == wanted or uuid.removeprefix("GPU-").startswith(
        wanted.removeprefix("GPU-"))]
    found = [made for uuid in uuids for made in hosts(uuid).values()]
    if not uuids:
        found = [made for uuid in known for name, made in hosts(uuid).items() if name == wanted]
    claimed = dict.fromkeys(str(made.uuid) for made in found)
    if len(claimed) > 1:
        raise RigError(f"{wanted} means {len(claimed)} cards: {', '.join(claimed)}", "", "give more of the UUID")
    if len(found) > 1:
        raise RigError(f"{len(found)} hosts have certificates of {', '.join(claimed)}: "
                       f"{', '.join(made.host for made in found)}", "", "name the host")
    if not found:
        have = f"there are certificates of {', '.join(known[:4])}" + (" …" if len(known) > 4 else "")
        raise RigError(f"there is no certificate of {wanted}", str(folder()),
                       have if known else "take one: qwen-rig certify")
    return found[0]


def open_(wanted: str) -> Certificate:
    """A certificate by its file, else the newest of the card that `find` finds. Raises RigError."""
    return load(homes.expanded(wanted)) if wanted.endswith(".json") or "/" in wanted else find(wanted)
