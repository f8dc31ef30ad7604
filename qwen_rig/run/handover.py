"""Hands the checked hosts of lab.yml or cloud.yml over to pyinfra: what host data can't do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pyinfra.api.state import State
from pyinfra.context import ctx_state

from qwen_rig.ssh import private_key

Hosts = list[tuple[str, dict[str, Any]]]
_SECRETS = ("_sudo_password", "ssh_password", "ssh_key_password")


def hand_over(hosts: Hosts) -> Hosts:
    """The same hosts, without the secrets, which go where pyinfra keeps those that it has asked for itself:
    `pyinfra INVENTORY debug-inventory` prints all host data.

    pyinfra's state is emptied when it is initialised, after the inventory was read: they go in after that.
    """
    secrets = {name: {key: data.pop(key) for key in _SECRETS if key in data} for name, data in hosts}
    state: State = ctx_state.get()
    initialise = state.init

    def init(*args: Any, **kwargs: Any) -> None:
        initialise(*args, **kwargs)
        for name, given in secrets.items():
            host = state.inventory.get_host(name)
            if "_sudo_password" in given:
                host.connector_data["prompted_sudo_password"] = given["_sudo_password"]
            if "ssh_password" in given:
                host.connector.data["ssh_password"] = given["ssh_password"]
            if "ssh_key_password" in given:
                path = host.data.ssh_key
                state.private_keys[path] = private_key(path, given["ssh_key_password"])

    state.init = init  # type: ignore[method-assign]
    for _, data in hosts:
        _touch(Path(data.get("ssh_known_hosts_file", "~/.ssh/known_hosts")).expanduser())
    return hosts


def _touch(known_hosts: Path) -> None:
    """Make the file for new host keys, as ssh does: without its folder pyinfra can't connect at all."""
    known_hosts.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    known_hosts.touch(mode=0o600)
