"""From the checked hosts of lab.yml or cloud.yml to pyinfra: what host data can't do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from . import adapter

Hosts = list[tuple[str, dict[str, Any]]]
_SECRETS = ("_sudo_password", "ssh_password", "ssh_key_password")


def hand_over(hosts: Hosts) -> Hosts:
    """The same hosts without their secrets, which pyinfra gets apart: debug-inventory prints all host data."""
    secrets = {name: {key: data.pop(key) for key in _SECRETS if key in data} for name, data in hosts}
    state = adapter.state_in_the_making()
    adapter.when_ready(state, lambda: adapter.keep_secrets(state, secrets))
    for _, data in hosts:
        _touch(Path(data.get("ssh_known_hosts_file", "~/.ssh/known_hosts")).expanduser())
    return hosts


def _touch(known_hosts: Path) -> None:
    """Make the file for new host keys, as ssh does: without its folder pyinfra can't connect at all."""
    known_hosts.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    known_hosts.touch(mode=0o600)
