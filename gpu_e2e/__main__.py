"""python -m gpu_e2e kit | run [PART…] | down"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import subprocess
import sys
import time
from pathlib import Path

from .machine import Machine, down
from .parts import ORDER, PARTS, go
from .report import write

LEAST_S = 10  # no part is begun with less left
KIT = Path(__file__).resolve().parent.parent / ".kit"


def main(argv: list[str] | None = None) -> int:
    """The exit code: 0 when every part that was asked for is done, 2 when one goes on, 1 when one failed."""
    parser = argparse.ArgumentParser(prog="python -m gpu_e2e", description="The main job on this machine's own card.")
    parser.add_argument("what", choices=["kit", "run", "down"], help="kit: what a machine without a network needs")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of: {' '.join(PARTS)} (default: all)")
    parser.add_argument("--kit", type=Path, default=KIT, help="where the kit lies (default: .kit)")
    parser.add_argument("--work", type=Path, default=Path("/opt/qwen-rig-e2e"), help="a folder for everything")
    parser.add_argument("--python", default="python3", help="the Python that has torch (default: python3)")
    parser.add_argument("--rehearsal", action="store_true", help="kit: for a machine without a card")
    parser.add_argument("--for-s", type=float, default=math.inf, help="end after so many seconds; run again to go on")
    parser.add_argument("--again", action="store_true", help="also parts that are done")
    given = parser.parse_intermixed_args(argv)
    if unknown := [name for name in given.parts if name not in PARTS]:
        parser.error(f"no part {', '.join(unknown)}: {', '.join(PARTS)}")
    try:
        return _kit(given.kit, given.rehearsal) if given.what == "kit" else _run(given)
    except (OSError, ValueError, subprocess.CalledProcessError) as error:
        print(f"gpu-e2e: {error}", file=sys.stderr)
        return 1


def _kit(folder: Path, rehearse: bool) -> int:
    from .kit import make, rehearsal  # needs the product's packages, which the machine doesn't have

    (rehearsal if rehearse else make)(folder)
    return 0


def _run(given: argparse.Namespace) -> int:
    if not (given.kit / "kit.json").is_file():
        raise ValueError(f"no kit in {given.kit}: `make gpu-e2e-kit` where registries are in reach")
    kit = json.loads((given.kit / "kit.json").read_text())
    python = shutil.which(given.python)
    if python is None:
        raise ValueError(f"no {given.python} here: --python names the one that has torch")
    given.work.mkdir(parents=True, exist_ok=True)
    machine = Machine(given.work.resolve(), given.kit.resolve(), python, kit["roots"], kit.get("model", {}),
                      time.monotonic() + given.for_s)
    if given.what == "down":
        down(machine)
        return 0
    states = []
    for name in given.parts or ORDER:
        if machine.until - time.monotonic() < LEAST_S:
            states.append("goes on")
            break
        part = go(machine, name, given.again)
        states.append(part.state)
        print(f"=== {name}: {part.state} in {part.seconds:.0f} s {part.why}", flush=True)
        if part.state != "done" and name in ("ready", "apply"):
            break
    write(machine.work, kit["commit"], list(PARTS))
    print(f"{machine.work}/report.html, report.json")
    return 1 if "failed" in states else 2 if "goes on" in states else 0


if __name__ == "__main__":
    sys.exit(main())
