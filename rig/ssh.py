"""The SSH connection: a socket tuned for many short commands, and private keys opened beforehand."""

from __future__ import annotations

import logging
import socket
from functools import cache
from pathlib import Path
from typing import Any

import paramiko

KEEPALIVE_S = 5  # an idle connection is asked for a sign of life this often
DEAD_AFTER_S = 20  # data unacknowledged for this long: the cable is out (Linux; elsewhere the system's limit)

_OPTIONS = (  # (level, name, value); a name that this system lacks is left out
    # Without it each command waits for Nagle and the delayed ACK of the one before: 40 ms on a LAN.
    (socket.IPPROTO_TCP, "TCP_NODELAY", 1),
    # A pulled cable must fail the step, not hang it: neither pyinfra nor paramiko sets any limit of its own.
    (socket.SOL_SOCKET, "SO_KEEPALIVE", 1),
    (socket.IPPROTO_TCP, "TCP_KEEPIDLE", KEEPALIVE_S),
    (socket.IPPROTO_TCP, "TCP_KEEPINTVL", KEEPALIVE_S),
    (socket.IPPROTO_TCP, "TCP_USER_TIMEOUT", DEAD_AFTER_S * 1000),
)
# paramiko's thread logs tracebacks; where no log is set up Python would print them amid our own words.
logging.getLogger("paramiko").addHandler(logging.NullHandler())

_KEY_TYPES = (paramiko.Ed25519Key, paramiko.RSAKey, paramiko.ECDSAKey)


def transport(sock: Any, **arguments: Any) -> paramiko.Transport:
    """A paramiko transport on a tuned socket. Behind ProxyJump and ProxyCommand `sock` is a channel or pipe
    without options to set: those get the keepalive alone."""
    if hasattr(sock, "setsockopt"):
        for level, name, value in _OPTIONS:
            option = getattr(socket, name, None)
            if option is not None:
                sock.setsockopt(level, option, value)
    made = paramiko.Transport(sock, **arguments)
    made.set_keepalive(KEEPALIVE_S)  # data in flight, so that the limit above has something to run out on
    return made


def connect_kwargs() -> dict[str, Any]:
    """What group data gives pyinfra as `ssh_paramiko_connect_kwargs`."""
    return {"transport_factory": transport}


@cache
def private_key(path: str, passphrase: str | None = None) -> paramiko.PKey:
    """The key in a file, with the certificate beside it (`KEY-cert.pub`) if there is one.

    Opened once, as a passphrase is slow by design. Raises paramiko's PasswordRequiredException, or its
    SSHException where the passphrase is wrong or the file is no private key.
    """
    for kind in _KEY_TYPES:
        try:
            key: paramiko.PKey = kind.from_private_key_file(path, passphrase)
        except paramiko.PasswordRequiredException:
            raise
        except (paramiko.SSHException, ValueError):
            continue  # another type, or not a key at all
        certificate = f"{path}-cert.pub"
        if Path(certificate).is_file():
            key.load_certificate(certificate)
        return key
    raise paramiko.SSHException(f"not a private key that this passphrase opens: {path}")
