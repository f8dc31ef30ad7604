"""`make demo` and `make demo-quick`: the main job from nothing to proof and back, on two throw-away SSH hosts.

What is real and what is emulated is said at its start, before anything is downloaded.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import yaml
from rich.console import Console
from rich.rule import Rule
from rich.table import Table

from qwen_rig import exits
from qwen_rig.catalog.stack import DATA, Stack, load_stack
from qwen_rig.cli import Parser
from qwen_rig.render import out
from qwen_rig.units import size

from . import cli, interpreter, paths, wheels
from ._shell import TestbedError, end_by_signals
from .bed import Testbed

REPO = Path(__file__).resolve().parent.parent
HOSTS = 2


def main(argv: list[str]) -> int:
    """0 where every act of the demo came out as it should."""
    parser = Parser(prog="python -m testbed.demo", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="with stack=standin: small packages, nothing is trained")
    stack = load_stack("standin" if parser.parse_args(argv).quick else "guide")
    console = out()
    bed = Testbed(paths.instance("demo"))
    end_by_signals()
    try:
        _announce(console, stack)
        fetch(stack)
        with bed:
            return _acts(console, bed, stack)
    except TestbedError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1


def fetch(stack: Stack) -> None:
    """Bring the stack's locked files and uv's into the testbed's wheelhouse, for the Python that the hosts have."""
    chosen = interpreter.choose()
    python = f"{chosen.prefix}/bin/python{chosen.minor}" if chosen.prefix else interpreter.USERLAND
    for lock in (DATA / "locks" / "uv.lock.txt", stack.lock):
        assert lock is not None
        wheels.ensure_wheels(lock, python)


def write_inventory(bed: Testbed, stack: Stack) -> Path:
    """The testbed's inventory, for that stack."""
    path = cli.inventory(bed)
    data = yaml.safe_load(path.read_text())
    data["defaults"]["stack"] = stack.name
    path.write_text(yaml.safe_dump(data, sort_keys=False))
    return path


def _announce(console: Console, stack: Stack) -> None:
    python = interpreter.choose().minor
    fetched = stack.bytes_for(stack.requirements(python), python)
    # The wheelhouse keeps one copy; each host keeps an env and its own cache of the downloads.
    needed = (fetched or 0) / 1e6 + HOSTS * stack.disk_mib * 1.05
    free = shutil.disk_usage(paths.cache()).free / 1e6
    console.print(Rule(f"qwen-rig demo · stack {stack.name}"))
    console.print(f"{HOSTS} throw-away hosts on this machine, over real SSH. {stack.summary}.")
    console.print(cli.REAL.format(python=f"CPython {python}"), style="dim")
    console.print(cli.NOT_REAL, style="dim")
    amount = "an unknown amount" if fetched is None else size(fetched)
    console.print(f"Downloads {amount} of packages the first time, and needs about {needed / 1000:.1f} GB of disk "
                  f"below {paths.cache()} ({free / 1000:.0f} GB free).")
    if free < needed:
        raise TestbedError(f"{paths.cache()} has {free / 1000:.1f} GB free, {needed / 1000:.1f} GB are needed · "
                           "free some, or set QWEN_RIG_CACHE to a folder on a bigger disk")


def _acts(console: Console, bed: Testbed, stack: Stack) -> int:
    began = time.monotonic()
    console.print(f"Bringing up {HOSTS} hosts …")
    bed.up(cli.demo_specs(HOSTS))
    inventory = write_inventory(bed, stack)

    def act(title: str, *arguments: str, wanted: int = exits.OK) -> bool:
        """One command of the tool, on this very terminal: its width, its colours, its live board."""
        console.print(Rule(title))
        console.print(f"$ qwen-rig {' '.join(arguments)}", style="bold")
        sys.stdout.flush()
        environment = {**os.environ, "LAB_HOSTS": str(inventory), "XDG_STATE_HOME": str(bed.folder / "state")}
        status = subprocess.run([sys.executable, "-m", "qwen_rig", *arguments], cwd=REPO, env=environment,
                                stdin=subprocess.DEVNULL, check=False).returncode
        if status != wanted:
            console.print(f"✗ this should have ended with {wanted}, not with {status}", style="red")
        return status == wanted

    good = act("1 · what would change, and why", "plan", wanted=exits.CHANGES)
    good = good and act("2 · make it so", "apply", "--yes")
    good = good and _proof(console, bed, stack)
    good = good and act("4 · again: nothing to do", "plan")  # else it ends with 2
    console.print(Rule(f"{time.monotonic() - began:.0f} s; the hosts are taken down"))
    return 0 if good else 1


def _told(measured: object) -> str:
    """What a check measured, for people: `device CPU, losses 5.71, 4.62`."""
    if isinstance(measured, dict):
        return ", ".join(f"{key} {_told(value)}" for key, value in measured.items())
    if isinstance(measured, list):
        return ", ".join(map(_told, measured))
    return f"{measured:.2f}" if isinstance(measured, float) else str(measured)


def _proof(console: Console, bed: Testbed, stack: Stack) -> bool:
    """Show what the verification on each host saw; what wasn't run is shown as that."""
    console.print(Rule("3 · the proof, as each host recorded it"))
    good = True
    for info in bed.hosts():
        show = ["sh", "-c", "cat ~/miniforge3/envs/qwen-train/.rig/verification.json"]
        made = json.loads(bed.exec_(info.name, show, check=True).stdout)
        table = Table("check", "result", "measured", title=f"{info.name}: {made['overall']}", title_justify="left",
                      box=None, title_style="bold")
        for check in made["checks"]:
            table.add_row(check["name"], check["status"].replace("_", " "),
                          _told(check["why"] if check["status"] != "pass" else check["measured"]))
        console.print(table)
        trained = any(c["name"] == "lora" and c["status"] == "pass" for c in made["checks"])
        good = good and made["overall"] != "fail" and (stack.standin or trained)
    if stack.standin:
        console.print("The stand-in stack trains nothing: `make demo` does, on the CPU.", style="yellow")
    return good


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
