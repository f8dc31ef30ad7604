"""Fixtures: pyinfra's real command line with stdin closed, a port that notices who dials it, a real sshd."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PASSPHRASE = "correct horse"


@dataclass
class Ran:
    code: int
    out: str
    err: str

    @property
    def said(self) -> list[str]:
        """What was said, less pyinfra's own headings."""
        return [line for line in (self.out + self.err).splitlines() if line.strip() and not line.startswith("--> ")]


@pytest.fixture
def pyinfra() -> Callable[..., Ran]:
    """Run `pyinfra ARGS` in the repository's root, stdin closed; `env` adds variables."""

    def run(*args: str, **env: str) -> Ran:
        done = subprocess.run([sys.executable, "-m", "pyinfra", *args], cwd=ROOT, stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, timeout=120, env={**os.environ, **env})
        return Ran(done.returncode, done.stdout, done.stderr)

    return run


@dataclass
class Port:
    """A port that is listened on, and whether anybody came."""

    number: int
    _socket: socket.socket

    @property
    def dialled(self) -> bool:
        try:
            self._socket.accept()[0].close()
        except BlockingIOError:
            return False
        return True


@pytest.fixture
def port() -> Iterator[Port]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        yield Port(listening.getsockname()[1], listening)


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the keys `plain`, `locked` (has PASSPHRASE) and their public halves."""
    folder = tmp_path_factory.mktemp("keys")
    for name, passphrase in (("plain", ""), ("locked", PASSPHRASE), ("host", "")):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase, "-f", str(folder / name)], check=True)
    return folder


@pytest.fixture(scope="session")
def sshd(keys: Path) -> Iterator[int]:
    """The port of a real OpenSSH server on the loopback; the current user may log in with either key."""
    binary = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if binary is None:
        pytest.skip("no sshd on this machine (apt-get install openssh-server)")
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    (keys / "authorized").write_text((keys / "plain.pub").read_text() + (keys / "locked.pub").read_text())
    with socket.create_server(("127.0.0.1", 0)) as free:
        number: int = free.getsockname()[1]
    config = keys / "sshd_config"
    config.write_text(f"Port {number}\nListenAddress 127.0.0.1\nHostKey {keys}/host\nPidFile none\nStrictModes no\n"
                      f"AuthorizedKeysFile {keys}/authorized\nPermitRootLogin yes\nUsePAM no\n")
    server = subprocess.Popen([binary, "-D", "-f", str(config), "-E", str(keys / "log")])
    try:
        for _ in range(100):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", number)) == 0:
                    break
            time.sleep(0.05)
        yield number
    finally:
        server.terminate()
        server.wait(10)
