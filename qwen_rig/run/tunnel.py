"""A bundle brought to a host through its own SSH connection: a port of the host's loopback, answered from here.

Any local user of the host may connect to that port, and take it once the connection is gone. So whoever asks says a
token of the run, and whoever answers shows a certificate of the run: what a host's programs need for both is `Way`.
"""

from __future__ import annotations

import random
import socket
import threading
import time
from contextlib import suppress
from dataclasses import field
from functools import cached_property
from pathlib import Path
from typing import Any

import paramiko

from qwen_rig import bundle as bundles
from qwen_rig.errors import RigError
from qwen_rig.frozen import frozen
from qwen_rig.inside import Checked
from qwen_rig.network import secure, serve
from qwen_rig.network.archive import Archive, Store

from . import adapter
from .adapter import Host

FIRST, PORTS, TRIES = 20000, 12000, 8  # below the ports that Linux hands out by itself (32768, ip_local_port_range)
AGAIN_S = 30  # a host's sshd may hold a port for a connection that it doesn't know to be dead yet
ANSWER_S = 60  # for sshd to say yes or no; paramiko itself would wait for ever


@frozen
class Way:
    """What a host's programs need: the bundle's address there; the token, a newline, the certificate's authority."""

    address: str
    secret: str = field(repr=False)


@frozen
class _Tunnel:
    """One host's forward: the connection that carries it (None: this machine), the port there, what it serves."""

    carrier: paramiko.Transport | None
    port: int
    desk: serve.Desk


class Tunnels:
    """The forwards of one run; they end with it."""

    def __init__(self) -> None:
        self._open: dict[str, _Tunnel] = {}
        self._desks: dict[tuple[str, Path], serve.Desk] = {}
        self._stores: dict[Path, Store] = {}
        self._local: list[socket.socket] = []
        self._checked = Checked()
        self._closed = False

    @cached_property
    def _identity(self) -> secure.Identity:
        return secure.identity()

    def way(self, host: Host, folder: str) -> Way:
        """How the host gets at the bundle. The forward is made where there is none, or where the connection that
        carried it is another now; on the same port, so that a step which outlived its connection finds it again.

        Raises RigError where the host's sshd forbids it, and after the run's end.
        """
        desk = self.desk(host, folder)
        if host.name in self._open:
            self.again(host)
        if host.name not in self._open:
            carrier = adapter.transport(host)
            self._open[host.name] = _Tunnel(carrier, self._forward(carrier, desk, host.name), desk)
        return Way(f"https://{secure.ADDRESS}:{self._open[host.name].port}",
                   f"{desk.token}\n{self._identity.authority}")

    def desk(self, host: Host, folder: str) -> serve.Desk:
        """What that host is served; one for the whole run, with its token. Raises RigError after the run's end."""
        if self._closed:
            raise RigError("the run has ended, and its bundle is served no more", host.name, "run the command again")
        bundle = bundles.load(folder)
        key = (host.name, bundle.folder)
        if key not in self._desks:
            store = self._stores.setdefault(bundle.folder, Store(bundle.folder))
            self._desks[key] = serve.Desk(bundle, Archive(bundle.folder, store), self._checked)
        return self._desks[key]

    def wrong(self, name: str) -> str:
        """Which file of its bundle a host could not be served, and why; "" for none."""
        return next((f"{folder}: {desk.wrong}" for (host, folder), desk in self._desks.items()
                     if host == name and desk.wrong), "")

    def again(self, host: Host) -> None:
        """After a connection was made anew: the forward too, on the port that a job on the host may be fetching from.

        Nothing where the host has none, or still has it; a port that stays taken is given up for another.
        """
        if host.name not in self._open or self._closed:
            return
        tunnel, carrier = self._open[host.name], adapter.transport(host)
        if tunnel.carrier is carrier and _alive(carrier):
            return
        del self._open[host.name]
        if carrier is None or not _alive(carrier):
            return
        end = time.monotonic() + AGAIN_S
        while time.monotonic() < end and _alive(carrier):
            try:
                port = self._ask(carrier, tunnel.port, tunnel.desk)
                self._open[host.name] = _Tunnel(carrier, port, tunnel.desk)
                return
            except paramiko.SSHException:
                time.sleep(1)

    def close(self) -> None:
        """The run's end: every connection is hung up, none is taken any more, and the ports go back."""
        self._closed = True
        for desk in self._desks.values():
            desk.close()
        for listener in self._local:
            listener.close()
        for tunnel in self._open.values():
            if tunnel.carrier is not None and _alive(tunnel.carrier):
                with suppress(paramiko.SSHException, OSError, EOFError):  # not waited for: the host may never answer
                    tunnel.carrier.global_request("cancel-tcpip-forward", (secure.ADDRESS, tunnel.port), wait=False)
        self._open.clear()

    def _forward(self, carrier: paramiko.Transport | None, desk: serve.Desk, name: str) -> int:
        if carrier is None:
            return self._listen(desk)
        refused: Exception | None = None
        wished = random.SystemRandom().randrange(FIRST, FIRST + PORTS)
        for port in range(wished, wished + TRIES):
            try:
                return self._ask(carrier, port, desk)
            except paramiko.SSHException as error:  # taken, or forbidden: sshd doesn't say which
                refused = error
        raise RigError(f"sshd refuses to forward a port ({refused})", name,
                       "a bundle needs AllowTcpForwarding yes (or remote) in that host's sshd_config")

    def _listen(self, desk: serve.Desk) -> int:
        """A port of this machine, which is the host itself."""
        listener = socket.create_server((secure.ADDRESS, 0))
        self._local.append(listener)

        def serve_all() -> None:
            with suppress(OSError):  # closed at the run's end
                while True:
                    self._answer(desk, listener.accept()[0])

        threading.Thread(target=serve_all, daemon=True).start()
        port: int = listener.getsockname()[1]
        return port

    def _ask(self, carrier: paramiko.Transport, port: int, desk: serve.Desk) -> int:
        """One forward asked for. paramiko's SSHException where sshd refuses, or is silent (the connection ends)."""
        def accept(channel: paramiko.Channel, origin: Any, server: Any) -> None:
            self._answer(desk, channel)

        silence = threading.Timer(ANSWER_S, carrier.close)
        silence.daemon = True
        silence.start()
        try:
            return int(carrier.request_port_forward(secure.ADDRESS, port, accept))
        finally:
            silence.cancel()

    def _answer(self, desk: serve.Desk, channel: Any) -> None:
        # In a thread of its own: the connection's must not be kept.
        threading.Thread(target=serve.answer, args=(desk, self._identity.context, channel), daemon=True).start()


def _alive(carrier: paramiko.Transport | None) -> bool:
    return carrier is None or carrier.is_active()
