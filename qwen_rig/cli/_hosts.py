"""The options that every verb which speaks with hosts shares."""

from __future__ import annotations

import argparse


def arguments(parser: argparse.ArgumentParser, limit: bool = True) -> None:
    """-i, --limit (where several hosts make sense) and --data, as pyinfra has them."""
    parser.add_argument("-i", "--inventory", metavar="FILE",
                        help="inventory (.py), or a file like lab.yml or cloud.yml (default: inventories/lab.py)")
    if limit:
        parser.add_argument("--limit", metavar="HOST", action="append", default=[],
                            help="these hosts or groups only; may be given again")
    parser.add_argument("--data", metavar="KNOB=VALUE", action="append", default=[],
                        help="a knob of group_data/all.py, above what the inventory says; may be given again")
    parser.add_argument("--expect-gpus", metavar="N", action="append", dest="data", type="expect_gpus={}".format,
                        help="refuse a host that has another number of GPUs (the knob expect_gpus)")
    parser.add_argument("-v", "--verbose", action="count", default=0,
                        help="what is right already too, and the commands of each step")


def words(limit: list[str], data: list[str]) -> list[str]:
    """The same options again, as words of a command line."""
    given = (("--limit", limit), ("--data", data))
    return [word for name, values in given for value in values for word in (name, value)]
