"""`rig launch`: one training over several hosts: launch files on each, and an all-reduce over all of them."""

from __future__ import annotations

import argparse

from qwen_rig.cli import _hosts, _output

SUMMARY = "prepare one training over several hosts: write launch files on each, test an all-reduce over all"
EXAMPLES = ("qwen-rig launch lab-01 lab-02", "qwen-rig launch lab-01 lab-02 --data launch_address=10.0.0.5")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    parser.add_argument("hosts", nargs="*", metavar="HOST", help="these, rank 0 first as the inventory has them")
    _hosts.arguments(parser)


def run(options: argparse.Namespace) -> int:
    """0: ready · 1: they can't train together, or bad input · 3: unreachable · 4: the all-reduce failed or hangs."""
    from qwen_rig.cli import _session as session

    limit = [*options.limit, *options.hosts]
    with session.opened(options.inventory, limit, options.data, _output.Output.of(options), table=False) as opened:
        opened.prepare("launch.py")
        opened.execute()
        return opened.end("launch")
