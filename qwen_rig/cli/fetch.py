"""`rig fetch NAME`: a run's adapter, or the merged model, here; also while it trains."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from qwen_rig import say
from qwen_rig.cli import _types, runs
from qwen_rig.finetune import record
from qwen_rig.finetune.fetched import Target

SUMMARY = "bring a run's adapter (or the merged model) here, checked, on from where it broke off; also while it trains"
EXAMPLES = ("qwen-rig fetch support", "qwen-rig fetch support --merged -o model")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    parser.add_argument("name", metavar="NAME", help="a run's name")
    parser.add_argument("-o", "--output", type=_types.path, metavar="FOLDER", help="where it goes (default: ./NAME)")
    parser.add_argument("--merged", action="store_true", help="the model with the adapter merged into it, made there")
    runs.general(parser)


def run(options: argparse.Namespace) -> int:
    """0: there, and checked · 1: no such run, or it failed · 3: unreachable."""
    kept = record.load(record.checked(options.name))
    target = Target(options.output or Path(f"{kept.name}{'-merged' if options.merged else ''}"), kept.name)
    from qwen_rig.run import fetching

    made: list[dict[str, Any]] = []
    status = runs.on_host(kept, options, lambda host: made.extend([fetching.fetch(host, kept, target, options.merged)]))
    if options.json and made:
        say.as_json(made[0])
    elif made:
        say.out(target.folder)
    return status
