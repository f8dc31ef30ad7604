"""A connection that broke under our hands, made again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pyinfra.api.host import Host
from pyinfra.connectors.sshuserclient.client import get_host_keys
from pyinfra.connectors.util import clear_askpass_cache

from qwen_rig.run import tunnel as _forward

refused: dict[str, str] = {}  # why a host could not be connected again, at the last try
_expected: set[str] = set()


def expected(host: str, what: str) -> bool:
    """Whether a failure to connect is no end, as somebody is trying again; then it is kept in `refused`."""
    if host in _expected:
        refused[host] = what
    return host in _expected


@contextmanager
def _trying(host: str) -> Iterator[None]:
    refused.pop(host, None)
    _expected.add(host)
    try:
        yield
    finally:
        _expected.discard(host)


def connected(host: Host) -> bool:
    """Whether the connection still stands; true also where it is none that could break (@local)."""
    client = getattr(host.connector, "client", None)
    transport = client.get_transport() if client is not None else None
    return client is None or bool(transport and transport.is_active())


def reconnected(host: Host) -> bool:
    """Connect anew; whether it worked. Where it didn't, no card is written: who waits for the host says how it ends."""
    client = getattr(host.connector, "client", None)
    if client is not None:
        client.close()  # pyinfra's disconnect leaves the old client open
    clear_askpass_cache(host)  # and trusts an askpass file that may be gone
    host.disconnect()
    get_host_keys.cache.clear()  # else any key would do for a host first met in this run
    with _trying(host.name):
        host.connect(show_errors=False)
    if host.connected:
        _forward.again(host)  # what is at work there may be fetching from a bundle
    return bool(host.connected)
