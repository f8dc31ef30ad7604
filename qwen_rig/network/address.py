"""Which addresses may be fetched from: those that the user named, and public ones. A name is looked up once: the
address that was checked is the one that is connected to."""

from __future__ import annotations

import ipaddress
import socket
from urllib.parse import urlsplit

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
PORTS = {"http": 80, "https": 443}
NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052: the last 32 bits are an IPv4 address
NEVER = tuple(map(ipaddress.ip_network, (  # private, whatever the Python at hand says of them
    "100.64.0.0/10", "192.0.0.0/24", "192.88.99.0/24", "198.18.0.0/15", "64:ff9b:1::/48", "2001::/23", "5f00::/16",
    "fec0::/10", "::/96")))


class NotAllowed(Exception):
    """An address that nobody who may has named; its text is one line for people."""


def public(text: str) -> bool:
    """Whether an IP address is one of the public Internet's, with what it wraps: IPv4-mapped, 6to4, NAT64."""
    try:
        address: Address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address):
        within = address.ipv4_mapped or address.sixtofour
        if address in NAT64:
            within = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if within is not None:
            return public(str(within))
        if address.is_site_local:
            return False
    return (address.is_global and not address.is_multicast and not address.is_reserved and not address.is_unspecified
            and not any(address in network for network in NEVER if network.version == address.version))


def origin(url: str) -> tuple[str, str, int | None]:
    """Scheme, host and port of an address. ValueError where the port is none."""
    parts = urlsplit(url)
    return parts.scheme, (parts.hostname or "").lower().rstrip("."), parts.port or PORTS.get(parts.scheme)


def check_name(host: str) -> None:
    """Raises NotAllowed for a host that means a private one by its name, where a proxy will look the name up."""
    name = host.strip("[]").lower().rstrip(".")
    try:
        literal = name if ":" in name else socket.inet_ntoa(socket.inet_aton(name))  # 127.1 and 0x7f000001 too
    except OSError:
        literal = ""
    private = not public(literal) if literal else ("." not in name or name.endswith((
        ".localhost", ".local", ".internal", ".lan", ".home.arpa", ".intranet", ".corp", ".localdomain")))
    if private:
        raise NotAllowed(refusal(host))


def dial(host: str, port: int, timeout: float | None, private: bool) -> socket.socket:
    """A connection to a host. `private`: the user named it, so that it may be anywhere. Raises NotAllowed where all its
    addresses are private ones that nobody may have meant, OSError where none answers."""
    refused, failed = "", OSError(f"{host} has no address")
    for family, kind, protocol, _, place in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        if not private and not public(str(place[0])):
            refused = refused or str(place[0])
            continue
        made = socket.socket(family, kind, protocol)
        try:
            if timeout is not None:
                made.settimeout(timeout)
            made.connect(place)
            return made
        except OSError as error:
            made.close()
            failed = error
    if refused:
        raise NotAllowed(refusal(host, refused))
    raise failed


def refusal(host: str, address: str = "") -> str:
    """The line that says why a host isn't asked."""
    where = f" ({address})" if address not in ("", host) else ""
    return f"{host}{where} is no public address: only one that a knob names may be private"
