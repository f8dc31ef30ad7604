"""lab.yml, read and checked line by line, in pyinfra's words. Dials nothing.

inventories/lab.example.yml is its manual.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from qwen_rig.catalog.lines import Entries
from qwen_rig.connection import DEFAULT_PORT, HOST_NAME, Connections

EXAMPLE = "inventories/lab.example.yml"


def load_hosts(path: Path, ask: Callable[[str], str] | None = None) -> list[tuple[str, dict[str, Any]]]:
    """(name, pyinfra host data) of every host in the file, in its order.

    Secrets (`ssh_password`, `ssh_key_password`, `_sudo_password`) come from the environment variables that
    the file names, or from `ask`, once each; without `ask` the terminal is asked, if there is one.
    Raises RigError: one line with file, line and remedy.
    """
    return _Lab(path, EXAMPLE, f"copy {EXAMPLE} there and put your hosts in, or name another file: LAB_HOSTS=path",
                ask).hosts()


class _Lab(Connections):
    """One file being read."""

    def hosts(self) -> list[tuple[str, dict[str, Any]]]:
        top = self.entries(self.top, "the file")
        for name, (key, _) in top.items():
            if name not in ("defaults", "hosts"):
                self.refuse(key, f"unknown key {name!r}", "the file has two keys: defaults and hosts")
        if "hosts" not in top:
            self.refuse(self.top, "the file has no hosts", self.example)
        defaults = self.entries(top["defaults"][1], "defaults") if "defaults" in top else {}
        self.known(defaults, "defaults")
        listed = self.entries(top["hosts"][1], "hosts")
        if not listed:
            self.refuse(top["hosts"][0], "hosts is empty", self.example)
        hosts, places = [], dict[tuple[str, int], str]()
        for name, (key, node) in listed.items():
            data = self._host(name, key, defaults, node)
            place = str(data.get("ssh_hostname", name)).lower(), data.get("ssh_port", DEFAULT_PORT)
            if place in places:  # apt would run twice on it at the same time
                self.refuse(key, f"{name} has the address of {places[place]}: {place[0]} port {place[1]}",
                            "list each machine once")
            places[place] = name
            hosts.append((name, data))
        return hosts

    def _host(self, name: str, at: yaml.Node, defaults: Entries, node: yaml.Node) -> dict[str, Any]:
        if not HOST_NAME.fullmatch(name) or name in ("all", "lab"):
            self.refuse(at, f"a host can't be called {name!r}",
                        "letters, digits, . _ and -; all and lab are names of groups")
        own = self.entries(node, f"host {name}")
        self.known(own, f"host {name}")
        return self.host_data(name, {**defaults, **own})
