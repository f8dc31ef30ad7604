"""Big files between this machine and a host, by the host's own file transfer; whole, or not at all."""

from __future__ import annotations

import os
import re
import time
import uuid
from collections.abc import Callable
from pathlib import Path

from qwen_rig.domain import Domain
from qwen_rig.errors import RigError
from qwen_rig.flash import cache
from qwen_rig.program import load

from . import adapter
from .adapter import LOST, ConnectError, Host
from .converge import run_script
from .limits import Hopeless
from .run import Run

WHEEL = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+!-]{0,199}\.whl")  # what a host may call a file that comes here
SHA256 = re.compile(r"[0-9a-f]{64}")
TRIES = 3
PAUSE_S = 2.0
ABANDONED_MIN = 60  # minutes after which a part that nobody has written to is nobody's
LAND = load("deploy/flash_attn/land.sh")
HASH_SECONDS = 300  # sha256sum of a few hundred MB on the slowest disk


def bring(host: Host, domain: Domain, remote: str, sha256: str) -> Path:
    """A host's wheel fetched to here, with that sha256; below the folder of the host's domain, for the caller to
    remove. A transfer that breaks off begins anew, up to TRIES times. Raises RigError.
    """
    if not WHEEL.fullmatch(remote.rpartition("/")[2]) or not SHA256.fullmatch(sha256):
        raise RigError("the host names no wheel, or no sha256, that could be kept here", host.name)
    folder = cache.folder(domain) / "incoming" / f"{sha256[:16]}-{os.getpid()}-{host.name.replace('/', '_')}"
    path = folder / remote.rpartition("/")[2]

    def fetch() -> str | None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not host.get_file(remote, str(path)):
            return "the host gave no file"
        have = cache.sha256_of(path)
        return None if have == sha256 else f"it came as sha256 {have[:12]}…, the host has {sha256[:12]}…"

    try:
        _again(host, f"brings {path.name} from {host.name}", fetch)
    except RigError:
        drop(path)
        raise
    return path


def drop(path: Path) -> None:
    """Remove what `bring` fetched."""
    path.unlink(missing_ok=True)
    if path.parent.is_dir() and not any(path.parent.iterdir()):
        path.parent.rmdir()


def send(host: Host, path: Path, landing: str, folder: str, name: str = "") -> str:
    """Put a file into a folder, under its own name or another, its sha256 checked there; the path there.

    `landing`: a folder that is there, on the same disk; the other is made by the one command that checks. Raises
    RigError.
    """
    name = name or path.name
    sha256, target = cache.sha256_of(path), f"{folder.rstrip('/')}/{name}"
    part = f"{landing.rstrip('/')}/.qwen-rig-{name}.{uuid.uuid4().hex[:12]}.part"  # another run may send it too
    check = LAND(landing=landing, abandoned_min=str(ABANDONED_MIN), part=part, sha256=sha256, folder=folder,
                 target=target)

    def put() -> str | None:
        with path.open("rb") as file:
            if not host.put_file(file, part):
                return "the host took no file"
        return None if run_script(host, check, HASH_SECONDS)[0] else f"it isn't there with sha256 {sha256[:12]}…"

    _again(host, f"gets {path.name} ({path.stat().st_size / 1e6:.1f} MB) from here", put)
    return target


def _again(host: Host, what: str, transfer: Callable[[], str | None]) -> None:
    """Do a transfer until it succeeds, the connection made anew where it broke. Raises RigError."""
    this = Run.of(host)
    this.report.progress(host.name, what)
    why: str | None = None
    for tried in range(TRIES):
        if tried:  # an SFTP that died alone is made anew by the connector
            time.sleep(PAUSE_S)
            this.report.progress(host.name, f"{what}, again: {why}")
        try:
            if (adapter.connected(host) and host.connected) or this.links.reconnected(host):
                why = transfer()
                if why is None:
                    return
            else:
                why = "connection lost"
        except Hopeless:
            raise
        except (FileNotFoundError, PermissionError) as error:  # another try finds the same
            raise RigError(f"{what}: {error}", host.name) from None
        except (*LOST, ConnectError) as error:
            why = f"{type(error).__name__}: {error}"
    raise RigError(f"{what}: failed {TRIES} times, at last: {why}", host.name)
