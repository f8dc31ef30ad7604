"""The line that a provider's page shows: `ssh -p 40123 root@1.2.3.4 -i key`; and names out of ~/.ssh/config."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from getopt import GetoptError, gnu_getopt
from typing import Any

from qwen_rig import values
from qwen_rig.cloud.model import Instance, instance
from qwen_rig.errors import RigError

# ssh(1): the options that take a value, then those that take none. What doesn't say where the host is, is passed over.
_OPTIONS = "b:c:B:D:E:e:F:I:i:J:L:l:m:O:o:P:p:Q:R:S:W:w:46AaCfGgKkMNnqsTtVvXxYy"
PASTE = "paste the line whole: ssh -p 40123 root@1.2.3.4"
_OURS = {"port": "-p", "user": "-l", "identityfile": "-i"}


def read(data: Any, where: str, options: Mapping[str, Any]) -> Iterator[Instance]:
    """Each line: a list of them, or a mapping name → line; plain text has one on each line. Raises RigError."""
    lines = data.splitlines() if isinstance(data, str) else data
    pairs = lines.items() if isinstance(lines, Mapping) else [("", line) for line in lines]
    for name, line in pairs:
        if not isinstance(line, str) or not isinstance(name, str):
            raise RigError(f"a line must be text, not {values.shown(line)}", where, PASTE)
        if line.strip() and not line.lstrip().startswith("#"):
            yield _line(name, line, where)


def _line(name: str, line: str, where: str) -> Instance:
    at, remedy = f"{where}, «{line.strip()[:80]}»", PASTE
    try:
        words = shlex.split(line)
        if words[:1] == ["ssh"]:
            words = words[1:]
        given, rest = gnu_getopt(words, _OPTIONS)
    except (ValueError, GetoptError) as error:
        raise RigError(f"isn't a line for ssh: {error}", at, remedy) from None
    said: dict[str, str] = {}
    for option, value in given:
        if option == "-o":
            key, _, value = value.replace(" ", "=", 1).partition("=")
            option = _OURS.get(key.strip().lower(), "")
            if key.strip().lower() in ("proxyjump", "proxycommand"):
                option = "-J"
        if option == "-J":
            raise RigError("goes through another host", at, "write it into ~/.ssh/config and name the alias: "
                                                           "source: ssh-config")
        said.setdefault(option, value.strip())
    if len(rest) != 1:
        raise RigError("names no host, or has a command behind it", at, remedy)
    user, _, address = rest[0].removeprefix("ssh://").rpartition("@")
    if "://" in rest[0] and ":" in address and not address.endswith("]"):  # [2001:db8::1] has no port behind it
        address, _, said["-p"] = address.rpartition(":")
    address = address.strip("[]")
    port = said.get("-p", "22")
    own = name or re.sub(r"[^A-Za-z0-9._-]", "-", f"ssh-{address}-{port}")
    return instance(at, own, address=address, port=port, user=user or said.get("-l") or None, key=said.get("-i"),
                    label=own)


def aliases(data: Any, where: str, options: Mapping[str, Any]) -> Iterator[Instance]:
    """Names of ~/.ssh/config, whose Include and ProxyJump are obeyed: SkyPilot's, dstack's, one's own."""
    names = data.split() if isinstance(data, str) else data
    for name in names:
        if not isinstance(name, str):
            raise RigError(f"a name must be text, not {values.shown(name)}", where, "name them as ~/.ssh/config does")
        yield instance(where, str(name), address=str(name), label=str(name), ssh_config=True)
