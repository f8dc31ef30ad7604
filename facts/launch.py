"""What a launch across several hosts must know of one of them: its addresses, and the launch files that are there."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from ipaddress import IPv4Interface
from typing import Any

from qwen_rig import strictjson
from qwen_rig.facts._fact import ProbeFact
from qwen_rig.facts._sh import script

INTERFACE = re.compile(r"[^\s/\x00-\x20\x7f]{1,15}")  # what the kernel takes for a name (dev_valid_name)
# Run by the env's own Python: `ip` isn't everywhere. One address an interface: SIOCGIFADDR, SIOCGIFNETMASK and
# SIOCGIFFLAGS of netdevice(7), whose IFF_UP is 1 and IFF_LOOPBACK 8.
_PROGRAM = """
import fcntl, json, os, socket, struct, sys
def ask(code, name):
    return fcntl.ioctl(plug.fileno(), code, struct.pack("256s", name.encode()[:15]))
found, files = [], {}
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as plug:
    for _, name in socket.if_nameindex():
        try:
            flags = struct.unpack("H", ask(0x8913, name)[16:18])[0]
            address, mask = (socket.inet_ntoa(ask(code, name)[20:24]) for code in (0x8915, 0x891b))
        except OSError:
            continue
        if flags & 9 == 1:
            found.append([name, address, sum(bin(int(part)).count("1") for part in mask.split("."))])
for name in sys.argv[2:]:
    try:
        with open(os.path.join(sys.argv[1], name)) as file:
            files[name] = file.read(LARGEST)
    except OSError:
        pass
print(json.dumps({"addresses": found, "files": files}))
""".replace("LARGEST", str(strictjson.LARGEST + 1))


class LaunchState(ProbeFact[dict[str, Any]]):
    """Interfaces that are up, with their IPv4 address and prefix length, and the texts of those files in the env's
    `.rig` that are there. `env` is the env's folder; both are empty where its Python doesn't run.

    **Example:**

    .. code:: python

        {"addresses": [["eth0", "10.0.0.5", 24]], "files": {"launch.sh": "…"}}
    """

    @staticmethod
    def default() -> dict[str, Any]:
        """A host that said nothing."""
        return {"addresses": [], "files": {}}

    def command(self, env: str, names: str) -> str:
        """`names`: the files, with commas between."""
        at = shlex.quote(env)
        words = shlex.join(names.split(","))
        run = f"lim {at}/bin/python -c {shlex.quote(_PROGRAM)} {at}/.rig {words}"
        return script({"launch": f"owned {at}/bin/python {at}/.rig && {run}"})

    def read(self, text: Mapping[str, str]) -> dict[str, Any]:
        """Both, or the default where the program said nothing; `odd`: why both are empty though it said something."""
        lines = text["launch"].splitlines()
        try:
            return _read(lines[-1]) if lines else self.default()
        except ValueError as error:
            return {**self.default(), "odd": " ".join(str(error).split())[:200]}


def _read(line: str) -> dict[str, Any]:
    """What the program printed. Raises ValueError for what it doesn't print."""
    found, why = strictjson.parse(line, 8 * strictjson.LARGEST)
    files, addresses = (found.get("files"), found.get("addresses")) if isinstance(found, dict) else (None, None)
    if why or not isinstance(files, dict) or not isinstance(addresses, list):
        raise ValueError(why or "no addresses and files")
    if not all(isinstance(each, str) for each in files.values()):
        raise ValueError("a file that is no text")
    return {"addresses": [_address(row) for row in addresses], "files": files}


def _address(row: Any) -> list[Any]:
    """`[interface, IPv4 address, prefix length]`. Raises ValueError for another thing."""
    if not (isinstance(row, list) and len(row) == 3 and isinstance(row[0], str) and isinstance(row[1], str)
            and type(row[2]) is int and INTERFACE.fullmatch(row[0])):
        raise ValueError(f"no address of an interface: {str(row)[:80]!r}")
    at = IPv4Interface(f"{row[1]}/{row[2]}")
    return [row[0], str(at.ip), at.network.prefixlen]
