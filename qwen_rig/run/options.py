"""The options of pyinfra's own command line, looked at before a host is dialled: it takes most of them as they are."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from qwen_rig import connection, homes, knobs, project, ssh, values
from qwen_rig.errors import RigError

from . import adapter, stumble

CALLED = {"ssh_port": "--port", "ssh_user": "--user", "ssh_key": "--key"}
# The least and the most of each; pyinfra asks for whole numbers alone, and some of the larger end it.
NUMBERS = {"parallel": (1, 10_000), "retry": (0, 1000), "retry_delay": (0, 86_400), "fail_percent": (0, 100)}
TEXTS = ("chdir", "config_filename", "sudo_user", "su_user", "dzdo_user", "shell_executable", "ssh_user", "ssh_key",
         "ssh_key_password", "ssh_password")  # pyinfra takes an empty one, as of a variable that isn't set, for none
ROOT = ("sudo", "sudo_user", "use_sudo_password", "use_sudo_login", "su_user", "dzdo", "dzdo_user", "shell_executable")
DEPLOY = (Path(__file__).parents[1] / "deploy").resolve()
LEADS_ON = "pyinfra inventories/lab.py …, with your hosts in inventories/lab.yml (another file: LAB_HOSTS=FILE)"


def refuse_bad(given: Mapping[str, Any]) -> None:
    """Raises RigError for the first option that can't be meant."""
    if given.get("same_sudo_password"):
        raise RigError("one password for all hosts would also reach hosts that it isn't meant for",
                       "--same-sudo-password", "name it for the hosts that ask for one: sudo_password_env in lab.yml")
    for name, (least, most) in NUMBERS.items():
        if given.get(name) is not None and not least <= given[name] <= most:
            raise RigError(f"{_option(name)} can't be {given[name]}", "pyinfra's options",
                           f"a whole number from {least} to {most}")
    for name in TEXTS:
        if given.get(name) == "":
            raise RigError(f"{_option(name)} is empty", "pyinfra's options", "give a value, or leave it out")
    _connection(given)
    _group_data(given.get("group_data") or ())
    if adapter.deploys() and any(_ours(name) for name in given.get("operations") or ()):
        _as_root(given)
    others = dict(_of_others(text) for text in given.get("data") or () if not _knob(text))
    connection.refuse_bad(others, "--data")
    _inventory(str(given.get("inventory") or ""))
    for name in given.get("operations") or ():
        _declares(str(name))


def _option(name: str) -> str:
    return f"--{name.removesuffix('_filename').removeprefix('ssh_').replace('_', '-')}"


def _as_root(given: Mapping[str, Any]) -> None:
    """Refuse what would run each command as somebody else, or in another shell: env and caches are the SSH user's."""
    if wrong := next((name for name in ROOT if given.get(name)), None):
        raise RigError(f"{_option(wrong)} isn't for qwen-rig's deploys", "pyinfra's options", "leave it out: the steps "
                       "that take root use sudo by themselves; its password: sudo_password_env in lab.yml")


def _group_data(named: Iterable[str]) -> None:
    """Refuse places that pyinfra would read nothing from, and say nothing of it."""
    for name in named:
        path = Path(name)
        if not name or not _fit(name) or not path.exists():
            raise RigError(f"no such file or folder: {values.shown(name)}", "--group-data", "name one like group_data/")
        if not any(each.suffix == ".py" for each in (path.iterdir() if path.is_dir() else [path])):
            raise RigError(f"there is no group's data in it: {name}", "--group-data", "it takes GROUP.py, or a folder "
                           "of such files")


def _connection(given: Mapping[str, Any]) -> None:
    said = {key: given.get(key) for key in CALLED}
    if said["ssh_port"] is not None:
        said["ssh_port"] = str(said["ssh_port"])  # 0 is no port, and pyinfra takes it for none given
    connection.refuse_bad(said, "pyinfra's options", CALLED)
    if said["ssh_key"]:
        _key(said["ssh_key"], given.get("ssh_key_password"))


def _key(named: str, passphrase: str | None) -> None:
    path = homes.expanded(named, "--key")
    if not os.path.isfile(path):
        raise RigError(f"no such key: {named}", "--key", "name a private key: ssh-keygen makes one")
    if not ssh.opens(str(path), passphrase):
        raise RigError(f"it is no private key, or its passphrase is another: {named}", "--key",
                       "name a private key: ssh-keygen makes one")


def _knob(text: str) -> bool:
    """Whether a --data is a knob's; it is checked then."""
    if "=" in text and not knobs.ours(text):
        return False
    knobs.pair(text)
    return True


def _of_others(text: str) -> tuple[str, Any]:
    name, _, value = text.partition("=")
    return name, knobs.parsed(value)


def _ours(named: str) -> bool:
    """Whether a file deploys what this package has."""
    path = Path(named)
    return path.suffix == ".py" and _fit(named) and path.is_file() and project.deploys(path)


def _declares(named: str) -> None:
    """Refuse a file that is no Python, the project's config.py, and a file of our own deploy/ that only defines things:
    a run of it would do nothing, and end well."""
    path = Path(named)
    if path.suffix != ".py" or not _fit(named) or not path.is_file():
        return
    body = _parsed(path, named).body
    if path.resolve() == Path("config.py").resolve():
        raise RigError("it is the project's config, and no deploy", named, "deploy/5090.py has all steps")
    if path.resolve().parent == DEPLOY and not any(
            isinstance(each, ast.Expr) and isinstance(each.value, ast.Call) for each in body):
        raise RigError("it is a part of qwen-rig and does nothing by itself", named,
                       "deploy/5090.py has all steps (one of them: --data only_steps=NAME)")


def _parsed(path: Path, named: str) -> ast.Module:
    try:
        text = path.read_bytes()
        compile(text, named, "exec", dont_inherit=True)  # refuses more than the parser does
        return ast.parse(text, named)
    except OSError as error:
        raise RigError(f"it can't be read: {error.strerror}", named, "correct its rights, or name another") from None
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise stumble.of_file(error if isinstance(error, SyntaxError) else SyntaxError(str(error)), named) from None


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
    if project.deploys(path):
        raise RigError("it is a deploy, and no inventory", named, LEADS_ON)
    _parsed(path, named)


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
