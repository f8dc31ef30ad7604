"""What every source of instances gives, and the checks that are the same for all. Knows no provider."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from qwen_rig import hosttext
from qwen_rig.connection import HOST_NAME, is_address
from qwen_rig.errors import RigError

_USER = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}\$?")  # useradd(8); dots, as clouds allow them


@dataclass(frozen=True)
class Instance:
    """One rented machine, as its provider lists it.

    name: unique and fit for an inventory; its host key is kept under it. label: the user's own word for it, any text.
    state: the provider's word; `running`: whether it can be dialled. ssh_config: reached by what ~/.ssh/config says of
    `address`, so that port and user stand there. wrong: why it can't be dialled although it runs.
    """

    name: str
    running: bool
    state: str
    address: str | None = None
    port: int | None = None
    user: str | None = None
    key: str | None = None
    label: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    ssh_config: bool = False
    wrong: RigError | None = None


def instance(where: str, name: str, *, address: Any = None, port: Any = None, user: Any = None, running: bool = True,
             state: str = "running", label: Any = "", tags: Any = None, key: str | None = None,
             ssh_config: bool = False) -> Instance:
    """An instance with every field checked; those of one that isn't running may be missing. What is wrong with address,
    port and user is kept in `wrong`: a filter may leave it out. Raises RigError where the name can't be one.
    """
    if not HOST_NAME.fullmatch(name):
        raise RigError(f"an instance's name or id can't be {name!r}", where, "letters, digits, . _ and - only")
    pairs = {str(k): str(v) for k, v in tags.items()} if isinstance(tags, Mapping) else {}
    found = Instance(name, running, hosttext.line(state or "unknown"), key=key, label=hosttext.line(str(label or "")),
                     tags=pairs, ssh_config=ssh_config)
    if not running:
        return found
    try:
        return replace(found, **_reached(f"{where}, instance {name}", address, port, user))
    except RigError as error:
        return replace(found, wrong=error)


def _reached(at: str, address: Any, port: Any, user: Any) -> dict[str, Any]:
    """Address, port and user, checked. Raises RigError."""
    if not address:
        raise RigError("it is running and has no address", at, "give it a public one, or filter it out by label")
    if not isinstance(address, str) or not is_address(address):
        raise RigError(f"its address can't be {address!r}", at, "a name or an IP alone is wanted")
    number = _port(port, at)
    if user is not None and not (isinstance(user, str) and _USER.fullmatch(user)):
        raise RigError(f"its user can't be {user!r}", at, "a login name is wanted")
    return {"address": address, "port": number, "user": user}


def _port(port: Any, at: str) -> int | None:
    """A port as JSON may have it: a number, or digits in quotes; None where the source leaves it to ssh."""
    if port is None:
        return None
    text = str(port)
    if isinstance(port, bool) or not text.isdigit() or not 0 < int(text) < 65536:
        raise RigError(f"its SSH port can't be {port!r}", at, "a whole number from 1 to 65535 is wanted")
    return int(text)


def rows(data: Any, where: str, *wrappers: str) -> list[Mapping[str, Any]]:
    """The list of objects in a JSON answer, bare or below one of these keys. Raises RigError."""
    for wrapper in wrappers:
        if isinstance(data, Mapping) and wrapper in data:
            data = data[wrapper]
    if isinstance(data, Mapping):
        data = [data]
    if not isinstance(data, list) or not all(isinstance(row, Mapping) for row in data):
        raise RigError("isn't the list of instances that is expected", where, "see cloud.example.yml for the command")
    return data


def text(row: Mapping[str, Any], key: str, where: str) -> str:
    """A field that must be there, as text (ids come as numbers too). Raises RigError."""
    value = row.get(key)
    if value is None or isinstance(value, (dict, list, bool)) or str(value) == "":
        raise RigError(f"an instance has no {key}", where, "is this the whole output of the command?")
    return str(value)
