"""How long a run takes that finds everything right: this project, ansible-core with the same checks, and the floor.

    python -m benchmarks.noop [--hosts 1,10,30] [--runs 5] [--files N] [--quick]

Each run is a whole process, from its start to its exit, on testbed hosts that share this machine's cores. The three
take turns, so that what else the machine does falls on all alike. Prints a table, writes benchmarks/latest.json.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from qwen_rig.cli import Parser
from qwen_rig.errors import RigError
from testbed._shell import TestbedError, end_by_signals
from testbed.paths import cache

from . import _ansible
from ._fleet import Fleet, Say
from ._tools import Ansible, Failed, Floor, Rig, Tool

LATEST = Path(__file__).with_name("latest.json")
TOOLS = ("rig", "ansible", "floor")


def main(argv: list[str] | None = None) -> int:
    """The exit code: 0 when every run found everything right."""
    parser = Parser(prog="python -m benchmarks.noop", description="No-op runs, side by side.")
    parser.add_argument("--hosts", default="1,10,30", help="how many, comma-separated (default: 1,10,30)")
    parser.add_argument("--runs", type=int, default=5, help="of each, after one that isn't counted (default: 5)")
    parser.add_argument("--files", type=int, default=0, help="that the env has beside the stand-in's (torch's: 30000)")
    parser.add_argument("--quick", action="store_true", help="1 and 3 hosts, two runs: a look, kept nowhere")
    options = parser.parse_args(argv)
    counts = [1, 3] if options.quick else [int(count) for count in options.hosts.split(",")]
    runs = 2 if options.quick else options.runs
    console = Console(stderr=True, highlight=False)
    start = time.monotonic()

    def say(what: str) -> None:
        console.print(f"{time.monotonic() - start:5.0f} s  {what}", markup=False)

    end_by_signals()
    try:
        say("ansible-core, in a venv of its own")
        binaries, ansible_version = _ansible.installed(cache())
        with tempfile.TemporaryDirectory(prefix="bench-") as folder, Fleet(Path(folder), say) as fleet:
            image = fleet.image(lambda: say(f"converged in {Rig(fleet).run():.0f} s"), options.files)
            rows = [measure(fleet, count, runs, image, binaries, say) for count in counts]
    except (Failed, TestbedError, RigError) as error:
        console.print(f"qwen-rig: {error}", markup=False)
        return 1
    except subprocess.CalledProcessError as error:
        console.print(f"qwen-rig: ansible-core could not be installed · {error}", markup=False)
        return 1
    if not options.quick and not options.files:
        LATEST.write_text(json.dumps({"noop": rows, "made": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "machine": {
            "cores": os.cpu_count(), "kernel": platform.release(), "python": platform.python_version(),
            "pyinfra": version("pyinfra"), "ansible-core": ansible_version}}, indent=1) + "\n")
    Console().print(table(rows, runs))
    return 0


def measure(fleet: Fleet, count: int, runs: int, image: str, binaries: Path, say: Say) -> dict[str, Any]:
    """One row: `count` hosts, each tool in turn, `runs` times; medians in seconds, and every single run."""
    say(f"{count} hosts come up from that disk")
    fleet.up(count, image)
    rig, floor = Rig(fleet), Floor(fleet)
    execs = rig.settle()
    tools: dict[str, Tool] = {"rig": rig, "ansible": Ansible(fleet, binaries, floor.state()), "floor": floor}
    for name in ("ansible", "floor"):
        tools[name].run()  # not counted: caches fill
    seconds: dict[str, list[float]] = {name: [] for name in TOOLS}
    for number in range(1, runs + 1):
        for name in TOOLS:
            seconds[name].append(round(tools[name].run(), 3))
        say(f"{count} hosts, run {number} of {runs}: " + ", ".join(f"{n} {seconds[n][-1]:.2f} s" for n in TOOLS))
    return {"hosts": count, "execs_per_host": execs, "runs": runs,
            **{f"{name}_s": round(statistics.median(seconds[name]), 3) for name in TOOLS}, "all_s": seconds}


def table(rows: list[dict[str, Any]], runs: int) -> Table:
    """The rows, with what they mean beside each other."""
    made = Table(title=f"No-op run, wall seconds, median of {runs}", title_justify="left")
    for heading in ("hosts", "SSH execs per host", "qwen-rig", "floor", "× floor", "ansible-core", "× faster"):
        made.add_column(heading, justify="right")
    for row in rows:
        made.add_row(str(row["hosts"]), str(row["execs_per_host"]), f"{row['rig_s']:.2f}", f"{row['floor_s']:.2f}",
                     f"{row['rig_s'] / row['floor_s']:.1f}", f"{row['ansible_s']:.2f}",
                     f"{row['ansible_s'] / row['rig_s']:.1f}")
    return made


if __name__ == "__main__":
    sys.exit(main())
