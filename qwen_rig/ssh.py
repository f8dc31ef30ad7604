"""The SSH connection: a socket tuned for many short commands, and private keys opened beforehand."""

from __future__ import annotations

import logging
import shlex
import socket
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import paramiko

from qwen_rig import wire
from qwen_rig.frozen import frozen
from qwen_rig.hostkeys import KnownHosts

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


@frozen
class HostKey:
    """Under which name, in which known_hosts, a host's key is looked up, instead of by its address.

    strict: a key that isn't known is refused; otherwise a first one is kept.
    """

    name: str
    known_hosts: Path
    strict: bool = False


class _Named(wire.Transport):
    """A transport that checks the host's key by a name, before anybody logs in."""

    named: HostKey

    def start_client(self, event: Any = None, timeout: float | None = None) -> None:
        known = KnownHosts(self.named.known_hosts)
        options = self.get_security_options()
        # A host with keys of several types must show one of the type that is known, as ssh has it.
        kept = [kind for key in known.keys(self.named.name) for kind in _algorithms(key.get_name())]
        options.key_types = [*kept, *(kind for kind in options.key_types if kind not in kept)]
        super().start_client(event, timeout)
        known.check(self.named.name, self.get_remote_server_key(), self.named.strict)
        # paramiko's own word for "the host is authenticated by other means": its client then doesn't look it up by
        # address. Should a release drop it, pyinfra's strict check below refuses the host; nothing goes unchecked.
        self.gss_kex_used = True


def _algorithms(kind: str) -> tuple[str, ...]:
    """The signature algorithms of a key type; RSA keys have several."""
    return ("rsa-sha2-512", "rsa-sha2-256", "ssh-rsa") if kind == "ssh-rsa" else (kind,)


def transport(sock: Any, host_key: HostKey | None = None, **arguments: Any) -> paramiko.Transport:
    """A paramiko transport on a tuned socket. Behind ProxyJump and ProxyCommand `sock` is a channel or pipe
    without options to set: those get the keepalive alone."""
    if hasattr(sock, "setsockopt"):
        for level, name, value in _OPTIONS:
            option = getattr(socket, name, None)
            if option is not None:
                sock.setsockopt(level, option, value)
    made = _Named(sock, **arguments) if host_key else wire.Transport(sock, **arguments)
    if isinstance(made, _Named) and host_key:
        made.named = host_key
    made.set_keepalive(KEEPALIVE_S)  # data in flight, so that the limit above has something to run out on
    return made


def connect_kwargs(host_key: HostKey | None = None) -> dict[str, Any]:
    """What group data gives pyinfra as `ssh_paramiko_connect_kwargs`; for one host, with where its key is kept."""

    def keyed(sock: Any, **arguments: Any) -> paramiko.Transport:  # no partial: debug-inventory --json must print it
        return transport(sock, host_key, **arguments)

    return {"transport_factory": keyed if host_key else transport}


def named_host_key(host_key: HostKey) -> dict[str, Any]:
    """The host data that make pyinfra check a host's key by its name."""
    return {"ssh_paramiko_connect_kwargs": connect_kwargs(host_key), "ssh_strict_host_key_checking": "yes",
            "ssh_known_hosts_file": str(host_key.known_hosts)}


def shell_line(name: str, data: Mapping[str, Any]) -> str:
    """`ssh -p 40123 -i KEY root@1.2.3.4`: how a person logs in to a host of these data, each word quoted for a
    shell."""
    user, port = data.get("ssh_user"), data.get("ssh_port")
    place = str(data.get("ssh_hostname") or name)
    at = ["-p", str(port)] if port and port != 22 else []
    at += ["-i", str(data["ssh_key"])] if data.get("ssh_key") else []
    return shlex.join(["ssh", *at, f"{user}@{place}" if user else place])


def opens(path: str, passphrase: str | None) -> bool:
    """Whether a file is a private key that this passphrase opens; true also where one is wanted and none was given."""
    try:
        private_key(path, passphrase or None)
    except paramiko.PasswordRequiredException:
        return True
    except (paramiko.SSHException, OSError):
        return False
    return True


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
