"""`python -m testbed up N | down | status | exec HOST COMMAND… | ready`."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

import yaml
from rich.console import Console
from rich.table import Table

from qwen_rig.cli import Parser

from . import base, host, interpreter, paths, prereq, services
from ._shell import EMULATED, TestbedError
from .bed import Testbed
from .spec import HostInfo, HostSpec

REAL = "real: OpenSSH, Debian, apt, dpkg, reboots, cables, {python}"
NOT_REAL = "emulated: the GPUs, their nvidia-smi and /proc, NVIDIA's packages, conda's installer and channel"


def main(argv: list[str]) -> int:
    """Returns the exit status; a TestbedError is one line."""
    options = _parser().parse_args(argv)
    console = Console()
    try:
        return _done(options, console)
    except TestbedError as error:
        print(f"testbed: {error}", file=sys.stderr)
        return 1


def _parser() -> Parser:
    parser = Parser(prog="python -m testbed", description=__doc__)
    parser.add_argument("--instance", default=os.environ.get("QWEN_RIG_TESTBED"),
                        help="several testbeds can be up at once, under different names (default: main; down: all of "
                             "this checkout's)")
    verbs = parser.add_subparsers(dest="verb", required=True)
    up = verbs.add_parser("up", help="bring up N hosts; the second has an old driver and an old toolkit")
    up.add_argument("hosts", type=int, nargs="?", default=2, metavar="N")
    up.add_argument("--bare", action="store_true", help="every host bare, the second too")
    verbs.add_parser("down", help="remove every process, mount, namespace and link, also after a crash or a signal")
    verbs.add_parser("status", help="which hosts are up")
    verbs.add_parser("ready", help="build what takes long, start nothing")
    inside = verbs.add_parser("exec", help="run a command on a host, not by SSH")
    inside.add_argument("host")
    inside.add_argument("command", nargs=argparse.REMAINDER)
    return parser


def _done(options: argparse.Namespace, console: Console) -> int:
    """The exit status of the verb that was asked for. Raises TestbedError."""
    if options.verb == "down" and options.instance is None:
        for name in paths.instances():
            Testbed(name).down()
        return 0
    bed = Testbed("main" if options.instance is None else options.instance)
    if options.verb == "up":
        return _up(bed, options.hosts, options.bare, console)
    if options.verb == "exec":
        return _exec(bed, options.host, options.command)
    if options.verb == "down":
        bed.down()
    elif options.verb == "status":
        _status(bed, console)
    else:
        prereq.ensure()
        base.compilers()
        base.systemd()
        services.prepare()
        console.print("ready", highlight=False)
    return 0


def demo_specs(count: int, bare: bool = False) -> list[HostSpec]:
    """lab-01 bare, lab-02 with a driver that a 5090 can't use and a toolkit that is too old, the rest bare."""
    old = {} if bare else {"driver": "550.90.07:proprietary", "toolkit": "12.4"}
    return [HostSpec(f"lab-{n:02d}", **(old if n == 2 else {})) for n in range(1, count + 1)]  # type: ignore[arg-type]


def inventory(bed: Testbed) -> Path:
    """Write the hosts and the knobs as inventories/lab.py reads them; returns the file's path."""
    defaults = {**bed.services().knobs(), "python": interpreter.choose().minor, "verification_gpu": False,
                "known_hosts": str(host.client_key().parent / "known_hosts")}
    hosts: dict[str, dict[str, object]] = {}
    for info in bed.hosts():
        hosts[info.name] = {"address": info.address, "user": info.user, "port": info.port, "key": info.key}
        if info.password:
            hosts[info.name]["sudo_password_env"] = "TESTBED_SUDO_PASSWORD"
    path = bed.folder / "lab.yml"
    text = yaml.safe_dump({"defaults": defaults, "hosts": hosts}, sort_keys=False)
    path.write_text(f"# Hosts of the testbed; their GPUs are {EMULATED}\n{text}", encoding="utf-8")
    path.chmod(0o600)
    return path


def _up(bed: Testbed, count: int, bare: bool, console: Console) -> int:
    if not 1 <= count <= 200:
        raise TestbedError(f"up {count} · wanted 1 to 200 hosts")
    bed.up(demo_specs(count, bare))
    path = inventory(bed)
    _status(bed, console)
    first = bed.hosts()[0]
    own = f"XDG_STATE_HOME={bed.folder / 'state'}"  # what emulated packages take is no foretaste of real ones
    console.print(f"\nInventory  {path}\n"
                  f"Use it     LAB_HOSTS={path} {own} pyinfra inventories/lab.py deploy/5090.py --dry\n"
                  f"Log in     ssh -i {first.key} {first.user}@{first.address}", highlight=False, soft_wrap=True)
    return 0


def _status(bed: Testbed, console: Console) -> None:
    rows = bed.status()
    if not rows:
        console.print(f"testbed {bed.instance!r}: no hosts", highlight=False)
        return
    table = Table("Host", "Address", "User", "GPU (emulated)", "Driver", "Toolkit", box=None, pad_edge=False)
    for info, on in rows:
        driver = (info.spec.driver or "none").replace(":", " ") if on else "(switched off)"
        table.add_row(info.name, info.address, info.user, _gpu(info), driver, info.spec.toolkit or "none")
    console.print(table)
    console.print(REAL.format(python=bed.services().python), highlight=False, style="dim")
    console.print(NOT_REAL, highlight=False, style="dim")


def _gpu(info: HostInfo) -> str:
    count = f"{info.spec.gpus} × " if info.spec.gpus > 1 else ""
    return f"{count}{info.spec.gpu}" if info.spec.gpu else "none"


def _exec(bed: Testbed, name: str, command: list[str]) -> int:
    info = bed.host(name)
    words = command[1:] if command[:1] == ["--"] else command
    if not words:
        raise TestbedError(f"exec {info.name} · no command")
    return subprocess.call(host.enter(bed.folder / "hosts" / info.name, words))
