"""Fixtures: pyinfra's real command line with stdin closed, a port that notices who dials it, keys."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests import HANG_S

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
                              capture_output=True, text=True, timeout=HANG_S, env={**os.environ, **env})
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
