"""Trust domains: the hosts that share what one of them makes. What is made outside never reaches them. Pure.

By default a host is a domain by itself: it is its name in the inventory and the key that it proves itself by, so that
another machine which gets the name or the address later is a stranger. The knob trust_domain names a shared one.
"""

from __future__ import annotations

import hashlib
import re

from qwen_rig.frozen import frozen

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")  # it names a folder; some disks don't tell capitals apart
# Who writes one of these means no sharing, or all hosts of an inventory, and would get a domain of that name.
NO_NAMES = ("all", "any", "auto", "default", "false", "never", "no", "off", "own", "self", "true", "yes")


@frozen
class Identity:
    """Who a host is to this controller: its name in the inventory, and its host key's fingerprint ("SHA256:…"); `key`
    None where no connection has one (@local)."""

    name: str
    key: str | None = None

    @property
    def digest(self) -> str:
        """16 hexadecimal digits; no two identities have the same."""
        return hashlib.sha256(f"{self.name}\0{self.key or ''}".encode()).hexdigest()[:16]


@frozen
class Domain:
    """One trust domain: `name` as the user gave it, or, where that is None, `host` alone."""

    name: str | None
    host: Identity | None = None

    @property
    def id(self) -> str:
        """Its name in records, and that of its folder: no two domains share one."""
        if self.name is not None:
            return f"domain-{self.name}"
        assert self.host is not None
        readable = re.sub(r"[^A-Za-z0-9.-]", "_", self.host.name)[:64]
        return f"host-{readable}-{self.host.digest}"

    def __str__(self) -> str:
        return f"domain {self.name}" if self.name is not None else f"{self.host.name if self.host else 'a host'} alone"


def domain_of(named: str | None, host: Identity) -> Domain:
    """The domain of a host whose knob trust_domain has that value."""
    return Domain(named) if named is not None else Domain(None, host)
