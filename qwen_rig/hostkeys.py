"""Host keys kept under a name of the machine's own (an instance's id) instead of its address, as HostKeyAlias does.

Rented machines use each other's addresses again. Under a name, another machine at an old address is no conflict,
and the same machine with another key is one, wherever it moved. The file is an OpenSSH known_hosts:

    ssh -o HostKeyAlias=vast-123456 -o UserKnownHostsFile=inventories/cloud.known_hosts …
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import logging
import os
import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import paramiko
from paramiko.hostkeys import HostKeyEntry, InvalidHostKey

from qwen_rig import atomic, homes, project
from qwen_rig.errors import RigError

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")  # known_hosts reads , | ! * ? and blanks as its own
# Beside the file: the last keys that were refused, so that what is accepted is the very key that was shown.
REFUSED = ".refused"
FINGERPRINT = re.compile(r"SHA256:[A-Za-z0-9+/]{43}")
OFFERS = 8  # kept of a name; who offers more in between makes the one that was shown be shown again
_log = logging.getLogger("pyinfra")


class HostKeyError(paramiko.SSHException):
    """The host isn't the one that it should be; nothing was sent to it."""


def sha256(key: paramiko.PKey) -> str:
    """`SHA256:…`, as `ssh-keygen -l` shows it."""
    return f"SHA256:{base64.b64encode(hashlib.sha256(key.asbytes()).digest()).decode().rstrip('=')}"


def fingerprint(key: paramiko.PKey) -> str:
    """`SHA256:…` and the type, for people."""
    return f"{sha256(key)} ({key.get_name().removeprefix('ssh-')})"


class KnownHosts:
    """One known_hosts file. Lines that can't be read are left alone, as OpenSSH does."""

    def __init__(self, path: Path) -> None:
        self.path = Path(os.path.realpath(homes.expanded(path)))  # rewritten beside what a link points at
        self.refused = Path(f"{self.path}{REFUSED}")

    def keys(self, name: str) -> list[paramiko.PKey]:
        """The keys kept for a name; none where it was never met."""
        return [entry.key for entry in _entries(self.path) if entry.key and _names(entry, name)]

    def all(self) -> list[tuple[str, str, bool]]:
        """(name, fingerprint, refused) of each key, in the files' order; those refused come last."""
        return [(name, fingerprint(entry.key), path == self.refused) for path in (self.path, self.refused)
                for entry in _entries(path) if entry.key for name in entry.hostnames or []]

    def check(self, name: str, key: paramiko.PKey, strict: bool) -> None:
        """Return if this is the name's key; a first one is kept, unless `strict`. Raises HostKeyError."""
        with self._locked():
            known = self.keys(name)
            if any(kept == key for kept in known):
                return
            if not known and not strict:
                _append(self.path, name, key)
                _log.warning("%s: first use, host key %s kept in %s", name, fingerprint(key), shown(self.path))
                return
            offered = [kept for kept in self._offered(name) if kept != key]
            self._rewrite(self.refused, name, *offered[1 - OFFERS:], key)
        what = f"has changed: kept {', '.join(map(fingerprint, known))}, offered" if known else "isn't known yet:"
        raise HostKeyError(f"host key of {name} {what} {fingerprint(key)}; to accept it: {self.command(name, key)}")

    def accept(self, name: str, shown_: str) -> str:
        """Keep the refused key whose fingerprint (`SHA256:…`) was shown, instead of what was kept; returns it with its
        type. Raises RigError where that key wasn't refused, whatever others were since."""
        with self._locked():
            offered = self._offered(name)
            if not offered:
                raise RigError(f"no host key of {name} was refused", shown(self.path),
                               "run plan first; `rig host-keys list` shows what there is")
            key = next((key for key in offered if sha256(key) == shown_), None)
            if key is None:
                raise RigError(f"{name} has offered no key {shown_}, but {', '.join(map(fingerprint, offered))}",
                               shown(self.path), "compare it with the machine's own key; accept none that you can't")
            self._rewrite(self.path, name, key)
            self._rewrite(self.refused, name)
        return fingerprint(key)

    def refused_fingerprints(self, name: str) -> list[str]:
        """`SHA256:…` of the keys of a name that were refused, the last one at the end."""
        return [sha256(key) for key in self._offered(name)]

    def _offered(self, name: str) -> list[paramiko.PKey]:
        return [entry.key for entry in _entries(self.refused) if entry.key and _names(entry, name)]

    def forget(self, name: str) -> int:
        """Drop all keys of a name; its next one is a first one. Returns how many were kept. Raises RigError."""
        with self._locked():
            count = len(self.keys(name))
            if not count:
                raise RigError(f"no host key of {name} is kept", shown(self.path), "`rig host-keys list` shows all")
            self._rewrite(self.path, name)
            self._rewrite(self.refused, name)
        return count

    def command(self, name: str, key: paramiko.PKey) -> str:
        """The command that accepts this very key, which was refused."""
        folder = project.found()
        file = "" if folder and self.path == default(folder).resolve() else f" --file {shlex.quote(str(self.path))}"
        return f"qwen-rig host-keys accept {shlex.quote(name)} {sha256(key)}{file}"

    def _rewrite(self, path: Path, name: str, *keys: paramiko.PKey) -> None:
        """Drop a name's keys from a file and add these; everything else stays as it is."""
        lines = []
        for line, entry in _lines(path):
            if not (entry and _names(entry, name)):
                lines.append(line)
            elif others := [host for host in entry.hostnames or [] if not _is(host, name)]:
                entry.hostnames = others
                lines.append(str(entry.to_line()).rstrip("\n"))
        text = "".join(f"{line}\n" for line in lines) + "".join(_line(name, key) for key in keys)
        atomic.write(path, text.encode(errors="surrogateescape"), 0o600)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Several hosts and several runs meet new keys at the same time."""
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = open(f"{self.path}.lock", "w")  # noqa: SIM115  closed below
        except OSError as error:
            raise RigError(f"host keys can't be kept there: {error.strerror}", shown(self.path),
                           "name another file: known_hosts: in lab.yml, --file") from None
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def default(folder: Path) -> Path:
    """A project's own file of host keys, beside cloud.yml."""
    return folder / "inventories" / "cloud.known_hosts"


def shown(path: Path) -> str:
    """A path as messages show it: short where it lies below the current folder."""
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)


def _lines(path: Path) -> Iterator[tuple[str, HostKeyEntry | None]]:
    try:
        text = path.read_text(encoding="utf-8", errors="surrogateescape")
    except FileNotFoundError:
        return
    except OSError as error:
        raise RigError(f"host keys can't be read: {error.strerror}", shown(path), "name a file of them") from None
    for line in text.splitlines():
        entry = None
        if line.strip() and not line.lstrip().startswith(("#", "@")):
            with suppress(paramiko.SSHException, InvalidHostKey, ValueError):
                entry = HostKeyEntry.from_line(line)
        yield line, entry


def _entries(path: Path) -> list[HostKeyEntry]:
    return [entry for _, entry in _lines(path) if entry]


def _names(entry: HostKeyEntry, name: str) -> bool:
    return any(_is(host, name) for host in entry.hostnames or [])


def _is(host: str, name: str) -> bool:
    return host == name or (host.startswith("|1|") and paramiko.HostKeys.hash_host(name, host) == host)


def _line(name: str, key: paramiko.PKey) -> str:
    line = HostKeyEntry([name], key).to_line()
    if not line:
        raise HostKeyError(f"host key of {name} can't be written down")
    return str(line)


def _append(path: Path, name: str, key: paramiko.PKey) -> None:
    with open(os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600), "r+b") as file:
        size = file.seek(0, os.SEEK_END)
        if size:
            file.seek(size - 1)
            if file.read(1) != b"\n":  # a hand-made file without its last newline
                file.write(b"\n")
        file.write(_line(name, key).encode())
