"""A client of a bundle's desk, as a host's programs are: TLS on a pair of sockets, as over a channel of SSH."""

from __future__ import annotations

import base64
import socket
import ssl
import threading
from functools import cache

from qwen_rig.network import secure, serve
from tests import HANG_S

identity = cache(secure.identity)


def login(desk: serve.Desk) -> str:
    """The header that says the token."""
    return "Basic " + base64.b64encode(f"{serve.USER}:{desk.token}".encode()).decode()


def connected(desk: serve.Desk) -> socket.socket:
    """A connection that the desk answers, without TLS yet."""
    here, there = socket.socketpair()
    here.settimeout(HANG_S)
    threading.Thread(target=serve.answer, args=(desk, identity().context, there), daemon=True).start()
    return here


def secured(plain: socket.socket, authority: str | None = None) -> ssl.SSLSocket:
    """The same as a client that trusts that authority (the run's) has it. Raises ssl.SSLError and OSError."""
    context = ssl.create_default_context(cadata=authority or identity().authority)
    return context.wrap_socket(plain, server_hostname=secure.ADDRESS)


def asked(desk: serve.Desk, path: str, method: str = "GET", **headers: str) -> tuple[int, str, bytes]:
    """One request: status, the status line's words, body."""
    with secured(connected(desk)) as here:
        lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
        here.sendall(f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{lines}\r\n".encode())
        with here.makefile("rb") as file:
            head, _, body = file.read().partition(b"\r\n\r\n")
    _, status, words = head.split(b"\r\n")[0].decode().split(" ", 2)
    return int(status), words, body
