"""`rig plan`: what would change, and why; nothing is changed."""

from __future__ import annotations

import argparse

from . import _hosts

SUMMARY = "what would change on each host, and why; changes nothing"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    _hosts.arguments(parser)


def run(options: argparse.Namespace) -> int:
    """0: nothing to do · 2: changes pending · 1: refused or failed · 3: unreachable."""
    from deploy import _door

    with _door.opened(options.inventory, options.limit, options.data, options.verbose) as door:
        door.prepare()
        return door.status(pending=True)
