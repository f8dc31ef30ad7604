"""The options that every verb which speaks with hosts shares."""

from __future__ import annotations

import argparse

from qwen_rig import knobs
from qwen_rig.deploy import ORDER
from qwen_rig.errors import RigError


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


def refuse_unread(options: argparse.Namespace) -> None:
    """Refuse what is said of hosts where no host is named: nobody would read it. Raises RigError."""
    for name in ("data", "inventory"):
        if getattr(options, name):
            pairs = [knobs.pair(text) for text in options.data]  # a name that is none is told as such
            said = f"--data {pairs[0][0]}" if pairs else "-i"
            raise RigError(f"{said} is said of hosts, and no host is named", f"rig {options.verb}",
                           "name a host, or leave it out")


def steps(parser: argparse.ArgumentParser) -> None:
    """--only and --skip, for the verbs that plan all steps: they are the knobs only_steps and skip_steps."""
    for option, knob, what in (("--only", "only_steps", "do this step and no other"),
                               ("--skip", "skip_steps", "leave this step out")):
        parser.add_argument(option, metavar="STEP", action="append", default=[], choices=ORDER, dest=knob,
                            help=f"{what}; may be given again: {', '.join(ORDER)}" if option == "--only"
                            else f"{what}; may be given again")


def data(options: argparse.Namespace) -> list[str]:
    """All knobs that the options give, as --data has them."""
    chosen = [f"{knob}={','.join(names)}" for knob in ("only_steps", "skip_steps")
              if (names := getattr(options, knob, None))]
    return [*options.data, *chosen]


def words(limit: list[str], data: list[str]) -> list[str]:
    """The same options again, as words of a command line."""
    given = (("--limit", limit), ("--data", data))
    return [word for name, values in given for value in values for word in (name, value)]
