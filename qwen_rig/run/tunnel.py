"""A bundle brought to a host through its own SSH connection: a port of the host's loopback, answered from here."""

from __future__ import annotations

import hashlib
import http.server
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import paramiko

from qwen_rig import bundle as bundles
from qwen_rig.errors import RigError
from qwen_rig.network import serve
from qwen_rig.network.archive import Archive

from . import adapter
from .adapter import Host

FIRST, PORTS, TRIES = 20000, 12000, 8  # below the ports that Linux hands out by itself (32768, ip_local_port_range)
AGAIN_S = 30  # a host's sshd may hold a port for a connection that it doesn't know to be dead yet


@dataclass(frozen=True)
class _Tunnel:
    """One host's forward: the connection that carries it (None: this machine), the port there, what it serves."""

    carrier: paramiko.Transport | None
    port: int
    bundle: bundles.Bundle


class Tunnels:
    """The forwards of one run."""

    def __init__(self) -> None:
        self._open: dict[str, _Tunnel] = {}
        self._archives: dict[Path, Archive] = {}

    def address(self, host: Host, folder: str) -> str:
        """The bundle's address as the host sees it. The forward is made where there is none, or where the connection
        that carried it is another now; on the same port, so that a step which outlived its connection finds it again.

        Raises RigError where the host's sshd forbids it.
        """
        bundle = bundles.load(folder)
        if host.name in self._open:
            self.again(host)
        if host.name not in self._open:
            carrier = adapter.transport(host)
            self._open[host.name] = _Tunnel(carrier, self._forward(carrier, bundle, host.name), bundle)
        return f"http://127.0.0.1:{self._open[host.name].port}"

    def again(self, host: Host) -> None:
        """After a connection was made anew: the forward too, on the port that a job on the host may be fetching from.

        Nothing where the host has none, or still has it; a port that stays taken is given up for another.
        """
        if host.name not in self._open:
            return
        tunnel, carrier = self._open[host.name], adapter.transport(host)
        if tunnel.carrier is carrier and _alive(carrier):
            return
        del self._open[host.name]
        if carrier is None or not _alive(carrier):
            return
        end = time.monotonic() + AGAIN_S
        while time.monotonic() < end:
            try:
                port = self._ask(carrier, tunnel.port, tunnel.bundle)
                self._open[host.name] = _Tunnel(carrier, port, tunnel.bundle)
                return
            except paramiko.SSHException:
                time.sleep(1)

    def archive(self, folder: Path) -> Archive:
        """The apt archives that are handed on beside the bundle of a folder, one for all of its hosts."""
        return self._archives.setdefault(folder, Archive(folder))

    def _forward(self, carrier: paramiko.Transport | None, bundle: bundles.Bundle, name: str) -> int:
        if carrier is None:
            handler = serve.handler(bundle, self.archive(bundle.folder))
            server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
            server.daemon_threads = True
            threading.Thread(target=server.serve_forever, daemon=True).start()
            return server.server_address[1]

        wished = FIRST + int(hashlib.sha256(f"{name} {bundle.folder}".encode()).hexdigest(), 16) % PORTS
        refused: Exception | None = None
        for port in range(wished, wished + TRIES):
            try:
                return self._ask(carrier, port, bundle)
            except paramiko.SSHException as error:  # taken, or forbidden: sshd doesn't say which
                refused = error
        raise RigError(f"sshd refuses to forward a port ({refused})", name,
                       "a bundle needs AllowTcpForwarding yes (or remote) in that host's sshd_config")

    def _ask(self, carrier: paramiko.Transport, port: int, bundle: bundles.Bundle) -> int:
        """One forward asked for; paramiko's SSHException where sshd refuses."""
        archive = self.archive(bundle.folder)

        def accept(channel: paramiko.Channel, origin: Any, server: Any) -> None:
            # Called by the connection's own thread, which must not be kept.
            threading.Thread(target=serve.answer, args=(bundle, archive, channel), daemon=True).start()

        return int(carrier.request_port_forward("127.0.0.1", port, accept))


def _alive(carrier: paramiko.Transport | None) -> bool:
    return carrier is None or carrier.is_active()
