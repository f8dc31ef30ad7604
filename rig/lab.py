"""lab.yml, read and checked line by line, in pyinfra's words. Dials nothing.

inventories/lab.example.yml is its manual.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from difflib import get_close_matches
from getpass import getpass
from pathlib import Path
from typing import Any

import paramiko
import yaml

from . import knobs
from ._lines import Entries, Lines
from .errors import RigError
from .ssh import private_key

EXAMPLE = "inventories/lab.example.yml"
DEFAULT_PORT = 22
CONNECTION = ("address", "port", "user", "key", "key_passphrase_env", "password_env", "sudo_password_env",
              "known_hosts", "host_keys")
HOST_KEYS = {"accept-new": "accept-new", "strict": "yes", "ignore": "no"}  # `yes` in YAML would be a bool
FREE = "x_"  # keys that begin so are handed on unread, for a deploy file of the user's own

_MEANT = {  # other tools' words
    **dict.fromkeys(("host", "hostname", "ip", "ssh_hostname", "ansible_host"), "address"),
    **dict.fromkeys(("username", "login", "ssh_user", "ansible_user"), "user"),
    **dict.fromkeys(("ssh_port", "ansible_port"), "port"),
    **dict.fromkeys(("ssh_key", "identity_file", "key_file", "private_key"), "key"),
}
_SECRETS = {
    **dict.fromkeys(("password", "ssh_password"), "password_env"),
    **dict.fromkeys(("sudo_password", "_sudo_password", "become_password"), "sudo_password_env"),
    **dict.fromkeys(("key_passphrase", "key_password", "passphrase"), "key_passphrase_env"),
}
_HOST_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*")  # capitals only: a password put there by mistake is not echoed


def load_hosts(path: Path, ask: Callable[[str], str] | None = None) -> list[tuple[str, dict[str, Any]]]:
    """(name, pyinfra host data) of every host in the file, in its order.

    Secrets (`ssh_password`, `ssh_key_password`, `_sudo_password`) come from the environment variables that
    the file names, or from `ask`, once each; without `ask` the terminal is asked, if there is one.
    Raises RigError: one line with file, line and remedy.
    """
    if ask is None and sys.stdin is not None and sys.stdin.isatty():
        ask = _ask_terminal
    return _Lab(path, ask).hosts()


def _ask_terminal(what: str) -> str:
    return getpass(f"{what}: ")


class _Lab(Lines):
    """One file being read, and the secrets asked for so far."""

    def __init__(self, path: Path, ask: Callable[[str], str] | None) -> None:
        super().__init__(path, EXAMPLE, f"copy {EXAMPLE} there and put your hosts in, or name another file: "
                                        "LAB_HOSTS=path")
        self.ask, self.asked = ask, dict[str, str]()

    def hosts(self) -> list[tuple[str, dict[str, Any]]]:
        top = self.entries(self.top, "the file")
        for name, (key, _) in top.items():
            if name not in ("defaults", "hosts"):
                self.refuse(key, f"unknown key {name!r}", "the file has two keys: defaults and hosts")
        if "hosts" not in top:
            self.refuse(self.top, "the file has no hosts", self.example)
        defaults = self.entries(top["defaults"][1], "defaults") if "defaults" in top else {}
        self._known(defaults, "defaults")
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

    def _known(self, given: Entries, owner: str) -> None:
        for name, (node, _) in given.items():
            if name in CONNECTION or name in knobs.NAMES or name.startswith(FREE):
                continue
            if name in _SECRETS:
                env = _SECRETS[name]
                self.refuse(node, f"{name} of {owner} would be a secret in a file",
                            f"export it and name the variable: {env}: {env.removesuffix('_env').upper()}")
            close = get_close_matches(name, [*CONNECTION, *knobs.NAMES], 1)
            meant = _MEANT.get(name, close[0] if close else "")
            self.refuse(node, f"unknown key {name!r} in {owner}", f"did you mean {meant}?" if meant else
                        f"it takes {', '.join(CONNECTION)} and the knobs of group_data/all.py")

    def _host(self, name: str, at: yaml.Node, defaults: Entries, node: yaml.Node) -> dict[str, Any]:
        if not _HOST_NAME.fullmatch(name) or name in ("all", "lab"):
            self.refuse(at, f"a host can't be called {name!r}",
                        "letters, digits, . _ and -; all and lab are names of groups")
        own = self.entries(node, f"host {name}")
        self._known(own, f"host {name}")
        given = {**defaults, **own}
        data: dict[str, Any] = {}
        for key, (here, value_node) in given.items():
            value = self.value(value_node)
            if key in knobs.NAMES:
                data[key] = knobs.check(key, value, self.where(here))
            elif key.startswith(FREE):
                data[key] = value
            else:
                data.update(self._connection(key, value, here, name, given))
        return data

    def _connection(self, key: str, value: Any, here: yaml.Node, name: str, given: Entries) -> dict[str, Any]:
        """One connection key in pyinfra's words."""
        if key == "port":
            if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 65536:
                self.refuse(here, f"port of {name} can't be {value!r}", "a whole number from 1 to 65535")
            return {"ssh_port": value}
        if not isinstance(value, str) or not value:
            self.refuse(here, f"{key} of {name} must be text", "put it in quotes")
        if key == "address":
            if "@" in value or value.count(":") == 1 or any(letter.isspace() for letter in value):
                self.refuse(here, f"address of {name} can't be {value!r}",
                            "a name or an IP alone; user and port have keys of their own")
            return {"ssh_hostname": value}
        if key == "user":
            return {"ssh_user": value}
        if key == "known_hosts":
            return {"ssh_known_hosts_file": str(self._path(value))}
        if key == "host_keys":
            if value not in HOST_KEYS:
                self.refuse(here, f"host_keys of {name} can't be {value!r}", ", ".join(HOST_KEYS))
            return {"ssh_strict_host_key_checking": HOST_KEYS[value]}
        if key == "password_env":
            return {"ssh_password": self._secret(here, name, key, value)}
        if key == "sudo_password_env":
            return {"_sudo_password": self._secret(here, name, key, value)}
        if key == "key":
            return self._key(here, name, self._path(value), given.get("key_passphrase_env"))
        return {}  # key_passphrase_env is read with the key, if that has a passphrase

    def _key(self, here: yaml.Node, name: str, path: Path,
             env: tuple[yaml.Node, yaml.Node] | None) -> dict[str, str]:
        """The key, opened here: a missing file or a wrong passphrase is said before any host is dialled."""
        if not path.is_file():
            self.refuse(here, f"key of {name} is not there: {path}",
                        "correct the path, or make one: ssh-keygen -t ed25519")
        if path.suffix == ".pub":
            self.refuse(here, f"key of {name} is a public key: {path}", f"name the private one: {path.stem}")
        if self._opens(here, name, path, None):
            return {"ssh_key": str(path)}
        if env:
            here = env[0]
            passphrase = self._secret(here, name, "key_passphrase_env", self.value(env[1]))
        elif self.ask:
            passphrase = self._asked(f"passphrase of {path}")
        else:
            self.refuse(here, f"key of {name} has a passphrase: {path}",
                        "export it and name the variable: key_passphrase_env: KEY_PASSPHRASE")
        self._opens(here, name, path, passphrase)
        return {"ssh_key": str(path), "ssh_key_password": passphrase}

    def _opens(self, here: yaml.Node, name: str, path: Path, passphrase: str | None) -> bool:
        """Whether the passphrase (None: none) opens the key; False where it wants one."""
        try:
            private_key(str(path), passphrase)
        except paramiko.PasswordRequiredException:
            return False
        except paramiko.SSHException:
            if passphrase is not None:
                self.refuse(here, f"the passphrase does not open key {path} of {name}", "correct it")
            self.refuse(here, f"key of {name} is not a private key: {path}",
                        "name an ed25519, RSA or ECDSA key as ssh-keygen makes them")
        except OSError as error:
            self.refuse(here, f"key of {name} can't be read: {path}: {error.strerror}", "correct its rights")
        return True

    def _path(self, value: str) -> Path:
        """A path as the file means it: `~` is home, a relative one starts at the file's own folder."""
        return Path(os.path.abspath(self.path.parent / Path(value).expanduser()))

    def _secret(self, here: yaml.Node, name: str, key: str, variable: Any) -> str:
        if not isinstance(variable, str) or not _VARIABLE.fullmatch(variable):
            self.refuse(here, f"{key} of {name} must be the name of an environment variable, in capitals",
                        f"export the secret, then write {key}: {key.removesuffix('_env').upper()}")
        if value := os.environ.get(variable):
            return value
        if self.ask:
            return self._asked(variable)
        self.refuse(here, f"environment variable {variable} ({key} of {name}) is not set",
                    "export it, or run in a terminal to be asked")

    def _asked(self, what: str) -> str:
        """A secret from the terminal, asked once however many hosts share it."""
        if self.ask and what not in self.asked:
            try:
                self.asked[what] = self.ask(what)
            except EOFError:
                raise RigError(f"no {what} was given", self.shown, "type it, or export it") from None
        return self.asked[what]
