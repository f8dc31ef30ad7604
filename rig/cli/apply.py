"""`rig apply`: show the plan, ask, make it so."""

from __future__ import annotations

import argparse

from . import _hosts

SUMMARY = "make it so: show the plan, ask, change what differs, verify"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    _hosts.arguments(parser)
    parser.add_argument("-y", "--yes", action="store_true", help="don't ask")


def run(options: argparse.Namespace) -> int:
    """0: done, or nothing to do · 1: failed, refused, or not confirmed · 3: unreachable · 4: verification failed."""
    from deploy import _door

    with _door.opened(options.inventory, options.limit, options.data, options.verbose) as door:
        door.prepare()
        door.execute()
        return door.status()
