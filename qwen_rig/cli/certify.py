"""`rig certify`: what each card really is and does, measured; a certificate a card, compared with the last."""

from __future__ import annotations

import argparse

from qwen_rig.cli import _hosts

SUMMARY = "prove each card: measure it, judge it, keep a certificate, say what has changed"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    _hosts.arguments(parser)


def run(options: argparse.Namespace) -> int:
    """0: no gate failed · 4: one did · 1: it could not be measured · 3: unreachable."""
    from qwen_rig.cli import _session as session

    with session.opened(options.inventory, options.limit, options.data, options.verbose) as opened:
        opened.prepare("certify.py")
        opened.execute()
        return opened.status()
