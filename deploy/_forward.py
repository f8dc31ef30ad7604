"""A bundle brought to a host through its own SSH connection: a port of the host's loopback, answered from here."""

from __future__ import annotations

import hashlib
import http.server
import threading
from typing import Any

import paramiko
from pyinfra.api.host import Host

from rig.errors import RigError
from rig.network import bundle as bundles
from rig.network import serve

FIRST, PORTS, TRIES = 20000, 12000, 8  # below the ports that Linux hands out by itself (32768, ip_local_port_range)
_open: dict[str, tuple[Any, int]] = {}  # host → (the connection that carries it, the port on the host)


def address(host: Host, folder: str) -> str:
    """The bundle's address as the host sees it. The forward is made where there is none, or where the connection that
    carried it is another now; on the same port, so that a step which outlived its connection finds it again.

    Raises RigError where the host's sshd forbids it.
    """
    transport = _transport(host)
    carried = _open.get(host.name)
    if carried is None or carried[0] is not transport or not _alive(transport):
        _open[host.name] = (transport, _forward(transport, bundles.load(folder), host.name))
    return f"http://127.0.0.1:{_open[host.name][1]}"


def _transport(host: Host) -> paramiko.Transport | None:
    """The host's SSH connection; None where it is this machine, or a connection of another kind."""
    client = getattr(host.connector, "client", None)
    return client.get_transport() if client is not None else None


def _alive(transport: paramiko.Transport | None) -> bool:
    return transport is None or transport.is_active()


def _forward(transport: paramiko.Transport | None, bundle: bundles.Bundle, name: str) -> int:
    if transport is None:
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), serve.handler(bundle))
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return server.server_address[1]

    def accept(channel: paramiko.Channel, origin: Any, server: Any) -> None:
        # Called by the connection's own thread, which must not be kept.
        threading.Thread(target=serve.answer, args=(bundle, channel), daemon=True).start()

    wished = FIRST + int(hashlib.sha256(f"{name} {bundle.folder}".encode()).hexdigest(), 16) % PORTS
    refused: Exception | None = None
    for port in range(wished, wished + TRIES):
        try:
            return int(transport.request_port_forward("127.0.0.1", port, accept))
        except paramiko.SSHException as error:  # taken, or forbidden: sshd doesn't say which
            refused = error
    raise RigError(f"sshd refuses to forward a port ({refused})", name,
                   "a bundle needs AllowTcpForwarding yes (or remote) in that host's sshd_config")
