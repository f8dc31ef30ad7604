"""A connection that broke under our hands, made again."""

from __future__ import annotations

from pyinfra.api.host import Host
from pyinfra.connectors.sshuserclient.client import get_host_keys
from pyinfra.connectors.util import clear_askpass_cache

from . import _forward, _report


def reconnected(host: Host) -> bool:
    """Connect anew; whether it worked. Where it didn't, no card is written: who waits for the host says how it ends."""
    client = getattr(host.connector, "client", None)
    if client is not None:
        client.close()  # pyinfra's disconnect leaves the old client open
    clear_askpass_cache(host)  # and trusts an askpass file that may be gone
    host.disconnect()
    get_host_keys.cache.clear()  # else any key would do for a host first met in this run
    with _report.expected(host.name):
        host.connect(show_errors=False)
    if host.connected:
        _forward.again(host)  # what is at work there may be fetching from a bundle
    return bool(host.connected)
