"""`python -m campaign --seed N [--inputs N] [--faults N] [--minutes M]`: bad inputs, then faults on testbed hosts.

Prints what each kind had, writes campaign/latest.json, and ends with 1 where a figure is not zero.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from qwen_rig.cli import Parser
from testbed import Testbed, paths
from testbed._shell import TestbedError, end_by_signals

from .lab import Lab
from .tally import Tally
from .trial import Round

LATEST = Path(__file__).with_name("latest.json")


def main(argv: list[str]) -> int:
    """The exit status: 0 where nothing was found."""
    parser = Parser(prog="python -m campaign", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="which cases (default: 1)")
    parser.add_argument("--inputs", type=int, default=1500, help="bad inputs to throw (default: 1500)")
    parser.add_argument("--faults", type=int, default=0, help="faults on a testbed host (default: 0; root on Linux)")
    parser.add_argument("--minutes", type=float, default=60, help="begin nothing new after these (default: 60)")
    parser.add_argument("--only", default="", help="faults with this in their name")
    parser.add_argument("--hosts", type=int, default=6, help="hosts side by side, a fault on each (default: 6)")
    parser.add_argument("--kind", choices=("metal", "vm"), default="metal",
                        help="vm: hosts with a systemd (default: metal)")
    parser.add_argument("--trial", default="", help="this one round, as a finding names it")
    options = parser.parse_args(argv)
    console, began = Console(stderr=True, highlight=False), time.monotonic()
    score = Tally(options.seed)

    def more() -> bool:
        return bool(time.monotonic() - began < 60 * options.minutes)

    end_by_signals()
    try:
        if options.inputs and not options.trial:
            from .inputs import throw

            throw(score, options.inputs, more)
        if options.faults or options.trial:
            faults(score, options, more, console)
    except TestbedError as error:
        print(f"campaign: {error}", file=sys.stderr)
        return 1
    LATEST.write_text(json.dumps(score.to_json(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    Console().print(score.table())
    for line in score.lines():
        Console().print(line, soft_wrap=True)
    return 1 if score.findings else 0


def faults(score: Tally, options: Namespace, more: Callable[[], bool], console: Console) -> None:
    """Round after round on the same hosts, until so many faults have struck."""
    wanted = [options.trial] if options.trial else \
        [f"{options.seed}-{n}" for n in range(-(-options.faults // options.hosts))]
    with tempfile.TemporaryDirectory(prefix="campaign-") as folder, Testbed(paths.instance("campaign")) as bed:
        lab = Lab(bed, Path(folder), options.hosts, options.kind)
        try:
            if lab.first.code != 0:
                raise TestbedError(f"the hosts do not converge before any fault · {lab.first.said[-2000:]}")
            for seed in wanted:
                if not more():
                    return
                _round(Round(lab, score, seed, options.only), score, seed, console)
        finally:
            lab.close()


def _round(made: Round, score: Tally, seed: str, console: Console) -> None:
    before, since = len(score.findings), time.monotonic()
    made.go()
    console.print(f"{time.monotonic() - since:5.0f} s  round {seed}", highlight=False)
    for trial in made.trials:
        console.print(f"         {trial.case}", markup=False, soft_wrap=True)
    for each in score.findings[before:]:
        console.print(f"        ✗ {each.counted}: {each.case}: {each.said}", markup=False, soft_wrap=True)
    LATEST.write_text(json.dumps(score.to_json(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
