"""A bundle brought to a host through its own SSH connection: a port of the host's loopback, answered from here."""

from __future__ import annotations

import hashlib
import http.server
import threading
import time
from functools import cache
from pathlib import Path
from typing import Any

import paramiko
from pyinfra.api.host import Host

from qwen_rig import bundle as bundles
from qwen_rig.errors import RigError
from qwen_rig.network import serve
from qwen_rig.network.archive import Archive

FIRST, PORTS, TRIES = 20000, 12000, 8  # below the ports that Linux hands out by itself (32768, ip_local_port_range)
AGAIN_S = 30  # a host's sshd may hold a port for a connection that it doesn't know to be dead yet
_open: dict[str, tuple[Any, int, bundles.Bundle]] = {}  # host → (the connection that carries it, port there, bundle)


def address(host: Host, folder: str) -> str:
    """The bundle's address as the host sees it. The forward is made where there is none, or where the connection that
    carried it is another now; on the same port, so that a step which outlived its connection finds it again.

    Raises RigError where the host's sshd forbids it.
    """
    bundle = bundles.load(folder)
    if host.name in _open:
        again(host)
    if host.name not in _open:
        transport = _transport(host)
        _open[host.name] = (transport, _forward(transport, bundle, host.name), bundle)
    return f"http://127.0.0.1:{_open[host.name][1]}"


def again(host: Host) -> None:
    """After a connection was made anew: the forward too, on the port that a job on the host may be fetching from.

    Nothing where the host has none, or still has it; a port that stays taken is given up for another.
    """
    if host.name not in _open:
        return
    carrier, port, bundle = _open[host.name]
    transport = _transport(host)
    if carrier is transport and _alive(transport):
        return
    del _open[host.name]
    if transport is None or not _alive(transport):
        return
    end = time.monotonic() + AGAIN_S
    while time.monotonic() < end:
        try:
            _open[host.name] = (transport, _ask(transport, port, bundle), bundle)
            return
        except paramiko.SSHException:
            time.sleep(1)


@cache
def archive(folder: Path) -> Archive:
    """The apt archives that are handed on beside the bundle of a folder, one for all of its hosts."""
    return Archive(folder)


def _transport(host: Host) -> paramiko.Transport | None:
    """The host's SSH connection; None where it is this machine, or a connection of another kind."""
    client = getattr(host.connector, "client", None)
    return client.get_transport() if client is not None else None


def _alive(transport: paramiko.Transport | None) -> bool:
    return transport is None or transport.is_active()


def _forward(transport: paramiko.Transport | None, bundle: bundles.Bundle, name: str) -> int:
    if transport is None:
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), serve.handler(bundle, archive(bundle.folder)))
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return server.server_address[1]

    wished = FIRST + int(hashlib.sha256(f"{name} {bundle.folder}".encode()).hexdigest(), 16) % PORTS
    refused: Exception | None = None
    for port in range(wished, wished + TRIES):
        try:
            return _ask(transport, port, bundle)
        except paramiko.SSHException as error:  # taken, or forbidden: sshd doesn't say which
            refused = error
    raise RigError(f"sshd refuses to forward a port ({refused})", name,
                   "a bundle needs AllowTcpForwarding yes (or remote) in that host's sshd_config")


def _ask(transport: paramiko.Transport, port: int, bundle: bundles.Bundle) -> int:
    """One forward asked for; paramiko's SSHException where sshd refuses."""

    def accept(channel: paramiko.Channel, origin: Any, server: Any) -> None:
        # Called by the connection's own thread, which must not be kept.
        threading.Thread(target=serve.answer, args=(bundle, archive(bundle.folder), channel), daemon=True).start()

    return int(transport.request_port_forward("127.0.0.1", port, accept))
