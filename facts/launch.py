"""What a launch across several hosts must know of one of them: its addresses, and the launch files that are there."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import Any

from qwen_rig import hosttext
from qwen_rig.facts._fact import ProbeFact
from qwen_rig.facts._sh import script

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
            files[name] = file.read()
    except OSError:
        pass
print(json.dumps({"addresses": found, "files": files}))
"""


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
        return script({"launch": f"lim {at}/bin/python -c {shlex.quote(_PROGRAM)} {at}/.rig {words}"})

    def read(self, text: Mapping[str, str]) -> dict[str, Any]:
        """Both, or the default where the program said nothing."""
        lines = text["launch"].splitlines()
        return {**self.default(), **hosttext.value(json.loads(lines[-1]))} if lines else self.default()
