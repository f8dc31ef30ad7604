"""lab.yml, read and checked line by line, in pyinfra's words. Dials nothing.

inventories/lab.example.yml is its manual.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from qwen_rig.catalog.lines import Entries
from qwen_rig.connection import DEFAULT_PORT, HOST_NAME, Connections
from qwen_rig.knobs import renamed
from qwen_rig.values import is_address

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
        top = self.entries((), "the file")
        for name, (line, _) in top.items():
            if name not in ("defaults", "hosts"):
                self.refuse(line, f"unknown key {name!r}", "the file has two keys: defaults and hosts")
        if "hosts" not in top:
            self.refuse(next((line for line, _ in top.values()), 1), "the file has no hosts", self.example)
        defaults = self.entries(("defaults",), "defaults") if "defaults" in top else {}
        self.known(defaults, "defaults")
        listed = self.entries(("hosts",), "hosts")
        if not listed:
            self.refuse(top["hosts"].line, "hosts is empty", self.example)
        hosts, places = [], dict[tuple[str, int], str]()
        for name, (line, _) in listed.items():
            data = self._host(name, line, defaults)
            place = str(data.get("ssh_hostname", name)).lower(), data.get("ssh_port", DEFAULT_PORT)
            if place in places:  # apt would run twice on it at the same time
                self.refuse(line, f"{name} has the address of {places[place]}: {place[0]} port {place[1]}",
                            "list each machine once")
            places[place] = name
            hosts.append((name, data))
        return hosts

    def _host(self, name: str, at: int, defaults: Entries) -> dict[str, Any]:
        if not HOST_NAME.fullmatch(name) or name in ("all", "lab"):
            self.refuse(at, f"a host can't be called {name!r}",
                        "letters, digits, . _ and -; all and lab are names of groups")
        own = self.entries(("hosts", name), f"host {name}")
        self.known(own, f"host {name}")
        if "address" not in own and "address" not in defaults and not is_address(name):
            self.refuse(at, f"{name!r} can't be dialled", "give it an address: a name or an IP")
        return self.host_data(name, {**renamed(defaults), **renamed(own)})
