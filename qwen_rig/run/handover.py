"""From the checked hosts of lab.yml or cloud.yml to pyinfra: what host data can't do."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from qwen_rig import homes, project
from qwen_rig.errors import RigError

from . import adapter

Hosts = list[tuple[str, dict[str, Any]]]
_SECRETS = ("_sudo_password", "ssh_password", "ssh_key_password")


def hand_over(hosts: Hosts) -> Hosts:
    """The same hosts without their secrets, which pyinfra gets apart: debug-inventory prints all host data."""
    secrets = {name: {key: data.pop(key) for key in _SECRETS if key in data} for name, data in hosts}
    state = adapter.state_in_the_making()
    adapter.when_ready(state, lambda: adapter.keep_secrets(state, secrets))
    if adapter.attached(state) is None and adapter.deploys():
        project.refuse_unread()
    for _, data in hosts:
        _touch(homes.expanded(data.get("ssh_known_hosts_file", "~/.ssh/known_hosts"), "known_hosts"))
    return hosts


def _touch(known_hosts: Path) -> None:
    """Make the file for new host keys, as ssh does: without its folder pyinfra can't connect at all. Raises RigError
    where it can't be made; nobody's home is."""
    try:
        if not known_hosts.is_file():
            if known_hosts.is_relative_to(os.path.expanduser("~")):
                homes.home()
            known_hosts.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            known_hosts.touch(mode=0o600)
    except OSError as error:
        raise RigError(f"host keys can't be kept there: {error.strerror}", str(known_hosts),
                       "name another file: known_hosts: in lab.yml") from None
