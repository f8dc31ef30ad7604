"""How a host is reached, as an inventory file says it: every key checked, in pyinfra's words. Dials nothing."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from getpass import getpass
from pathlib import Path
from typing import Any, TypeVar

import paramiko

from qwen_rig import homes, knobs, values
from qwen_rig.catalog.lines import Entries, Given, Lines
from qwen_rig.errors import RigError
from qwen_rig.hostkeys import NAME as KEY_NAME
from qwen_rig.ssh import HostKey, named_host_key, private_key

T = TypeVar("T")
DEFAULT_PORT = 22
CONNECTION = ("address", "port", "user", "key", "key_passphrase_env", "password_env", "sudo_password_env",
              "known_hosts", "host_keys", "host_key_alias")
HOST_KEYS = {"accept-new": "accept-new", "strict": "yes", "ignore": "no"}  # `yes` in YAML would be a bool
HOST_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*")  # capitals only: a password put there by mistake is not echoed

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


SSH: dict[str, Callable[[Any], object]] = {  # pyinfra's own data of a connection, from whatever inventory they come
    "ssh_hostname": values.address, "ssh_port": values.port, "ssh_user": values.user,
    **dict.fromkeys(("ssh_key", "ssh_known_hosts_file", "ssh_config_file"), values.local_path),
}


def refuse_bad(data: Mapping[str, Any], where: str, called: Mapping[str, str] | None = None) -> None:
    """Raises RigError for the first of pyinfra's data of a connection that can't be dialled. `called`: what the user
    calls them."""
    for key, check in SSH.items():
        try:
            if data.get(key) not in (None, ""):
                check(data[key])
        except values.Wrong as wrong:
            raise RigError(f"{(called or {}).get(key, key)} {wrong.what}", where, wrong.remedy) from None


def keyed(data: dict[str, Any], name: str, known_hosts: Path) -> dict[str, Any]:
    """The host data, with the host's key looked up by a name, unless it is to be ignored.

    known_hosts: where, if the data don't say.
    """
    policy = data.get("ssh_strict_host_key_checking", "accept-new")
    if policy == "no":
        return data
    kept = homes.expanded(data.get("ssh_known_hosts_file", known_hosts))
    return {**data, **named_host_key(HostKey(name, kept, policy == "yes"))}


class Connections(Lines):
    """An inventory file being read, and the secrets asked for so far.

    Without `ask` the terminal is asked, if there is one.
    """

    def __init__(self, path: Path, example: str, missing: str, ask: Callable[[str], str] | None) -> None:
        super().__init__(path, example, missing)
        if ask is None and sys.stdin is not None and sys.stdin.isatty():
            ask = _ask_terminal
        self.ask, self.asked = ask, dict[str, str]()

    def host_data(self, name: str, given: Entries) -> dict[str, Any]:
        """What these entries come to in pyinfra's words: connection, knobs, free keys."""
        data: dict[str, Any] = {}
        for key, (here, value) in given.items():
            if key in knobs.NAMES:
                data[key] = knobs.check(key, value, self.where(here))
            elif key.startswith(knobs.FREE) or key in knobs.OLD:  # an old name's value is checked as the new one's
                data[key] = value
            else:
                data.update(self._connection(key, value, here, name, given))
        if "host_key_alias" in given:
            data = keyed(data, given["host_key_alias"].value, Path("~/.ssh/known_hosts"))
        return data

    def known(self, given: Entries, owner: str, also: Iterable[str] = ()) -> None:
        """Refuse keys that are neither the connection's, nor knobs, nor free, nor among `also`."""
        own = (*also, *CONNECTION)
        for name, (line, _) in given.items():
            if name in own or name in knobs.NAMES or name in knobs.OLD or name.startswith(knobs.FREE):
                continue
            if name in _SECRETS:
                env = _SECRETS[name]
                self.refuse(line, f"{name} of {owner} would be a secret in a file",
                            f"export it and name the variable: {env}: {env.removesuffix('_env').upper()}")
            close = get_close_matches(name, [*own, *knobs.NAMES], 1)
            meant = _MEANT.get(name, close[0] if close else "")
            self.refuse(line, f"unknown key {name!r} in {owner}", f"did you mean {meant}?" if meant else
                        f"it takes {', '.join(own)} and the knobs of group_data/all.py")

    def _connection(self, key: str, value: Any, here: int, name: str, given: Entries) -> dict[str, Any]:
        """One connection key in pyinfra's words."""
        if key == "port":
            if isinstance(value, str):  # a number is meant, and one is wanted
                self.refuse(here, f"port of {name} can't be {value!r}", "a whole number from 1 to 65535")
            return {"ssh_port": self._typed(here, key, name, value, values.port)}
        if not isinstance(value, str) or not value:
            self.refuse(here, f"{key} of {name} must be text", "put it in quotes")
        if key == "address":
            return {"ssh_hostname": self._typed(here, key, name, value, values.address)}
        if key == "user":
            return {"ssh_user": self._typed(here, key, name, value, values.user)}
        if key == "known_hosts":
            return {"ssh_known_hosts_file": str(self._path(value, here))}
        if key == "host_keys":
            if value not in HOST_KEYS:
                self.refuse(here, f"host_keys of {name} can't be {value!r}", ", ".join(HOST_KEYS))
            return {"ssh_strict_host_key_checking": HOST_KEYS[value]}
        if key == "host_key_alias":
            if not KEY_NAME.fullmatch(value):
                self.refuse(here, f"host_key_alias of {name} can't be {value!r}", "letters, digits, . _ and -")
            return {}
        if key == "password_env":
            return {"ssh_password": self._secret(here, name, key, value)}
        if key == "sudo_password_env":
            return {"_sudo_password": self._secret(here, name, key, value)}
        if key == "key":
            return self.key(here, name, self._path(value, here), given.get("key_passphrase_env"))
        return {}  # key_passphrase_env is read with the key, if that has a passphrase

    def _typed(self, here: int, key: str, name: str, value: Any, check: Callable[[Any], T]) -> T:
        """The value of a key as its type has it."""
        try:
            return check(value)
        except values.Wrong as wrong:
            self.refuse(here, f"{key} of {name} {wrong.what}", wrong.remedy)

    def key(self, here: int, name: str, path: Path,
            env: Given | None) -> dict[str, str]:
        """The key, opened here: a missing file or a wrong passphrase is said before any host is dialled."""
        if not os.path.isfile(path):
            self.refuse(here, f"key of {name} is not there: {path}",
                        "correct the path, or make one: ssh-keygen -t ed25519")
        if path.suffix == ".pub":
            self.refuse(here, f"key of {name} is a public key: {path}", f"name the private one: {path.stem}")
        if self._opens(here, name, path, None):
            return {"ssh_key": str(path)}
        if env:
            here = env.line
            passphrase = self._secret(here, name, "key_passphrase_env", env.value)
        elif self.ask:
            passphrase = self._asked(f"passphrase of {path}")
        else:
            self.refuse(here, f"key of {name} has a passphrase: {path}",
                        "export it and name the variable: key_passphrase_env: KEY_PASSPHRASE")
        self._opens(here, name, path, passphrase)
        return {"ssh_key": str(path), "ssh_key_password": passphrase}

    def _opens(self, here: int, name: str, path: Path, passphrase: str | None) -> bool:
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

    def _path(self, value: str, line: int) -> Path:
        """A path as the file means it: `~` is home, a relative one starts at the file's own folder."""
        return Path(os.path.abspath(self.path.parent / homes.expanded(value, self.where(line))))

    def _secret(self, here: int, name: str, key: str, variable: Any) -> str:
        if not isinstance(variable, str) or not _VARIABLE.fullmatch(variable):
            self.refuse(here, f"{key} of {name} must be the name of an environment variable, in capitals",
                        f"export the secret, then write {key}: {key.removesuffix('_env').upper()}")
        if value := os.environ.get(variable):
            if set(value) & set("\n\r\0"):
                self.refuse(here, f"environment variable {variable} ({key} of {name}) holds more than one line",
                            "export the secret alone")
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


def _ask_terminal(what: str) -> str:
    return getpass(f"{what}: ")
