"""The options of pyinfra's own command line, looked at before a host is dialled: it takes most of them as they are."""

from __future__ import annotations

import ast
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qwen_rig import connection, homes, knobs, values
from qwen_rig.errors import RigError

from . import adapter, stumble

CALLED = {"ssh_port": "--port", "ssh_user": "--user", "ssh_key": "--key"}
LEAST = {"parallel": 1, "retry": 0, "retry_delay": 0, "fail_percent": 0}  # pyinfra asks for whole numbers alone
DEPLOY = (Path(__file__).parents[1] / "deploy").resolve()
LEADS_ON = "pyinfra inventories/lab.py …, with your hosts in inventories/lab.yml (another file: LAB_HOSTS=FILE)"


def refuse_bad(given: Mapping[str, Any]) -> None:
    """Raises RigError for the first option that can't be meant."""
    if given.get("same_sudo_password"):
        raise RigError("one password for all hosts would also reach hosts that it isn't meant for",
                       "--same-sudo-password", "name it for the hosts that ask for one: sudo_password_env in lab.yml")
    for name, least in LEAST.items():
        if given.get(name) is not None and given[name] < least:
            raise RigError(f"--{name.replace('_', '-')} can't be {given[name]}", "pyinfra's options",
                           f"a whole number from {least} on")
    _connection(given)
    others = dict(_of_others(text) for text in given.get("data") or () if not _knob(text))
    connection.refuse_bad(others, "--data")
    _inventory(str(given.get("inventory") or ""))
    for name in given.get("operations") or ():
        _declares(str(name))


def _connection(given: Mapping[str, Any]) -> None:
    said = {key: given.get(key) for key in CALLED}
    if said["ssh_port"] is not None:
        said["ssh_port"] = str(said["ssh_port"])  # 0 is no port, and pyinfra takes it for none given
    connection.refuse_bad(said, "pyinfra's options", CALLED)
    if said["ssh_key"] and not os.path.isfile(homes.expanded(said["ssh_key"], "--key")):
        raise RigError(f"no such key: {said['ssh_key']}", "--key", "name a private key: ssh-keygen makes one")


def _knob(text: str) -> bool:
    """Whether a --data is a knob's; it is checked then."""
    if "=" in text and not knobs.ours(text):
        return False
    knobs.pair(text)
    return True


def _of_others(text: str) -> tuple[str, Any]:
    name, _, value = text.partition("=")
    return name, knobs.parsed(value)


def _declares(named: str) -> None:
    """Refuse a file of our own deploy/ that only defines things: a run of it would do nothing, and end well."""
    path = Path(named)
    if path.suffix != ".py" or not _fit(named) or not path.is_file() or path.resolve().parent != DEPLOY:
        return
    body = ast.parse(path.read_bytes(), named).body
    if not any(isinstance(each, ast.Expr) and isinstance(each.value, ast.Call) for each in body):
        raise RigError("it is a part of qwen-rig and does nothing by itself", named,
                       "deploy/5090.py has all steps (one of them: --data only_steps=NAME)")


def _inventory(named: str) -> None:
    """Refuse a file that isn't there, or that is no inventory in Python; hosts and modules are pyinfra's business."""
    if not _fit(named) or not os.path.lexists(named):
        if ("/" in named or named.endswith((".py", ".yml", ".yaml"))) and not set(named) & set(",@"):
            raise RigError("no such inventory", values.shown(named), LEADS_ON)
        return
    path = Path(named)
    if path.is_dir():
        raise RigError("an inventory is a file, not a folder", named, LEADS_ON)
    if path.suffix in (".yml", ".yaml"):
        variable, name = ("CLOUD_HOSTS", "cloud") if "cloud" in path.stem else ("LAB_HOSTS", "lab")
        raise RigError("pyinfra takes an inventory in Python", named,
                       f"{variable}={named} pyinfra inventories/{name}.py …, or: qwen-rig plan -i {named}")
    try:
        compile(path.read_bytes(), named, "exec", dont_inherit=True)
    except OSError as error:
        raise RigError(f"the inventory can't be read: {error.strerror}", named, LEADS_ON) from None
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise stumble.of_file(error if isinstance(error, SyntaxError) else SyntaxError(str(error)), named) from None


def _fit(path: str) -> bool:
    try:
        return bool(values.local_path(path))
    except values.Wrong:
        return False


def refuse_nobody(inventory: Any, arguments: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Raises RigError where pyinfra would go on with no host, or with fewer than were named, and call that good."""
    if not len(inventory):
        raise RigError("there is no host in it", str(given.get("inventory") or "the inventory"), LEADS_ON)
    names = ", ".join(host.name for host in inventory)
    for option in ("limit", "exclude"):
        for pattern in given.get(option) or ():
            if not adapter.matching(inventory, pattern):
                raise RigError(f"no host or group {pattern!r}", f"--{option}", f"give each name its own --{option}, as "
                               f"the inventory spells it; * stands for any letters; there are: {names}")
    if arguments.get("initial_limit") == []:
        raise RigError("--limit and --exclude leave no host", "pyinfra's options",
                       f"give each name its own --limit, as the inventory spells it; there are: {names}")
