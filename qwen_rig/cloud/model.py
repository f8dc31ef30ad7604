"""What every source of instances gives, and the checks that are the same for all. Knows no provider."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import field, replace
from typing import Any, TypeVar

from qwen_rig import hosttext, values
from qwen_rig.connection import HOST_NAME
from qwen_rig.errors import RigError
from qwen_rig.frozen import frozen

RESERVED = ("all", "cloud")  # pyinfra's group, and that of inventories/cloud.py
T = TypeVar("T")
KINDS: dict[type[Any], str] = {list: "a list", dict: "a mapping", str: "a text"}
REACHED: tuple[tuple[str, Callable[[Any], object], str], ...] = (
    ("address", values.address, "address"), ("port", values.port, "SSH port"), ("user", values.user, "user"))


@frozen
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
    if name in RESERVED:
        raise RigError(f"an instance can't be called {name!r}", where, "that is a group's name: call it otherwise")
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
    found: dict[str, Any] = {"address": address, "port": port, "user": user}
    for name, check, called in REACHED:  # a port or user that a source leaves out is ssh's business
        try:
            found[name] = None if found[name] is None else check(found[name])
        except values.Wrong as wrong:
            raise RigError(f"its {called} {wrong.what}", at, f"{wrong.remedy} is wanted") from None
    return found


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


def part(row: Mapping[str, Any], key: str, where: str, kind: type[T]) -> T:
    """A list, a mapping or a text in an answer, an empty one where it isn't there. Raises RigError for another kind."""
    value = row.get(key)
    if value is None:
        return kind()
    if not isinstance(value, kind):
        raise RigError(f"{key} must be {KINDS[kind]}, not {values.shown(value)}", where,
                       "is this the whole output of the command?")
    return value


def parts(row: Mapping[str, Any], key: str, where: str) -> list[Mapping[str, Any]]:
    """A list of mappings in an answer."""
    found = part(row, key, where, list)
    if wrong := [each for each in found if not isinstance(each, Mapping)]:
        raise RigError(f"{key} must hold mappings, not {values.shown(wrong[0])}", where,
                       "is this the whole output of the command?")
    return found


def text(row: Mapping[str, Any], key: str, where: str) -> str:
    """A field that must be there, as text (ids come as numbers too). Raises RigError."""
    value = row.get(key)
    if value is None or isinstance(value, (dict, list, bool)) or str(value) == "":
        raise RigError(f"an instance has no {key}", where, "is this the whole output of the command?")
    return str(value)
