"""`rig bundle`: all that a stack's hosts fetch, collected here for hosts without a way out."""

from __future__ import annotations

import argparse

from qwen_rig import exits
from qwen_rig.cli import _output, _types

SUMMARY = "collect a stack's files in a folder for hosts without internet access (use it: bundle=FOLDER)"
EXAMPLES = ("qwen-rig bundle ./bundle", "qwen-rig bundle ./bundle --data stack=qwen3.5")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    parser.add_argument("folder", type=_types.path, help="where to; run again, it fetches only what is missing")
    parser.add_argument("--data", metavar="KNOB=VALUE", action="append", default=[],
                        help="a knob of group_data/all.py: stack, python and the source_… knobs matter here")
    parser.add_argument("--conda", metavar="PATH", type=_types.path,
                        help="a conda that solves for Python's packages; default: Miniforge's own, run here once "
                             "(Linux on x86_64)")


def run(options: argparse.Namespace) -> int:
    """0: the bundle is whole. Raises RigError where something can't be fetched; what came stays for the next try."""
    from qwen_rig import bundle
    from qwen_rig.knobs import pair, read, told_old
    from qwen_rig.network.collect import Collector
    from qwen_rig.units import size

    data = dict(map(pair, options.data))
    output = _output.Output.of(options)
    if line := told_old(data):
        output.talk(line)
    knobs = read(data, "bundle")
    folder = options.folder.resolve()
    Collector(folder, knobs, output.talk).collect(str(options.conda) if options.conda else None)
    made = bundle.load(str(folder))
    held = sum(row["bytes"] for row in made.files.values())
    found = {"folder": str(folder), "stack": made.stack, "python": made.python, "files": len(made.files), "bytes": held}
    output.result(found, lambda: (
        f"{folder}: {len(made.files)} files, {size(held)}, for stack {made.stack} on Python {made.python}\n"
        f"Next: set bundle={folder} (in lab.yml, or with --data); hosts then fetch from it through their SSH "
        "connection"))
    return exits.OK
