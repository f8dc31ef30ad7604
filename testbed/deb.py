"""Debian packages and a signed flat repository of them, built with dpkg-deb and gpg. Everything in them is EMULATED."""

from __future__ import annotations

import gzip
import hashlib
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from pathlib import Path

from ._shell import EMULATED, run

OWNER = f"qwen-rig testbed ({EMULATED}) <testbed@localhost>"


@dataclass(frozen=True)
class Package:
    """One package. files: path → text or bytes (executable below bin/ and .d/); links: path → target."""

    name: str
    version: str
    summary: str
    depends: tuple[str, ...] = ()
    conflicts: tuple[str, ...] = ()
    provides: tuple[str, ...] = ()
    files: dict[str, str | bytes] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    postinst: str = ""
    prerm: str = ""

    @property
    def file(self) -> str:
        """Its file's name in the repository."""
        return f"{self.name}_{self.version}_amd64.deb"

    def control(self) -> str:
        """The control file."""
        relations = {"Depends": self.depends, "Conflicts": self.conflicts, "Replaces": self.conflicts,
                     "Provides": self.provides}
        return (f"Package: {self.name}\nVersion: {self.version}\nArchitecture: amd64\nMaintainer: {OWNER}\n"
                "Section: non-free/libs\nPriority: optional\n"
                + "".join(f"{key}: {', '.join(value)}\n" for key, value in relations.items() if value)
                + f"Description: {self.summary}\n {EMULATED}: there's nothing of NVIDIA's in it.\n")


def build(packages: Sequence[Package], folder: Path) -> None:
    """Write each package's .deb into a folder, and the indexes beside them: Packages, Packages.gz."""
    folder.mkdir(parents=True, exist_ok=True)
    entries = []
    for package in packages:
        with tempfile.TemporaryDirectory() as scratch:
            _lay_out(package, Path(scratch))
            run(["dpkg-deb", "--root-owner-group", "-Zgzip", "-z1", "-b", scratch, folder / package.file])
        data = (folder / package.file).read_bytes()
        control, _, description = package.control().partition("Description:")
        entries.append(f"{control}Filename: ./{package.file}\nSize: {len(data)}\n"
                       f"SHA256: {hashlib.sha256(data).hexdigest()}\nDescription:{description}")
    text = "\n".join(entries).encode()
    (folder / "Packages").write_bytes(text)
    (folder / "Packages.gz").write_bytes(gzip.compress(text, mtime=0))


def sign(folder: Path, key: Path, origin: str) -> None:
    """Write the folder's Release, signed in line, as InRelease. `key`: an armored secret key."""
    indexes = {name: (folder / name).read_bytes() for name in ("Packages", "Packages.gz")}
    sums = "".join(f" {hashlib.sha256(data).hexdigest()} {len(data)} {name}\n" for name, data in indexes.items())
    release = (f"Origin: {origin}\nLabel: {EMULATED}\nArchitectures: amd64\nDate: {formatdate(usegmt=True)}\n"
               f"Description: {EMULATED}\nSHA256:\n{sums}")
    with _gnupg() as home:
        run([*home, "--import", key])
        signed = run([*home, "--clearsign", "--digest-algo", "SHA256"], stdin=release)
    (folder / "InRelease").write_text(signed, encoding="utf-8")


def signing_key(folder: Path) -> tuple[Path, str, str]:
    """A key pair kept in a folder, made once: the secret key's file, the armored public key, its fingerprint."""
    secret, public, note = folder / "repository.sec", folder / "repository.pub", folder / "repository.fingerprint"
    if not note.exists():
        folder.mkdir(mode=0o700, exist_ok=True)
        with _gnupg() as home:
            run([*home, "--quick-generate-key", f"{EMULATED} (apt)", "rsa3072", "sign", "never"])
            secret.touch(mode=0o600)
            secret.write_text(run([*home, "--armor", "--export-secret-keys"]), encoding="utf-8")
            public.write_text(run([*home, "--armor", "--export"]), encoding="utf-8")
            listed = re.search(r"^fpr:+([0-9A-F]{40}):", run([*home, "--with-colons", "--list-keys"]), re.MULTILINE)
            assert listed is not None
            note.write_text(listed[1], encoding="utf-8")
    return secret, public.read_text(encoding="utf-8"), note.read_text(encoding="utf-8")


@contextmanager
def _gnupg() -> Iterator[list[str]]:
    """gpg with a home of its own, in /tmp: its agent's socket needs a short path, and the agent ends with it."""
    with tempfile.TemporaryDirectory(prefix="qrt-", dir="/tmp") as home:
        try:
            yield ["gpg", "--batch", "--quiet", "--no-tty", "--homedir", home, "--pinentry-mode", "loopback",
                   "--passphrase", ""]
        finally:
            run(["gpgconf", "--homedir", home, "--kill", "all"])


def _lay_out(package: Package, root: Path) -> None:
    (root / "DEBIAN").mkdir()
    (root / "DEBIAN" / "control").write_text(package.control(), encoding="utf-8")
    for name, script in (("postinst", package.postinst), ("prerm", package.prerm)):
        if script:
            path = root / "DEBIAN" / name
            path.write_text(f"#!/bin/sh\n# {EMULATED}\nset -e\n{script}", encoding="utf-8")
            path.chmod(0o755)
    for name, content in package.files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        path.chmod(0o755 if re.search(r"/s?bin/|postinst\.d/", name) else 0o644)
    for name, target in package.links.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(target)
