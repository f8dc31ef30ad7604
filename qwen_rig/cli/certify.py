"""`rig certify`: what each card really is and does, measured; a certificate a card, compared with the last."""

from __future__ import annotations

import argparse

from qwen_rig.cli import _hosts, _output

SUMMARY = "measure each card, keep the judged results as a certificate, and compare it with the last one"
EXAMPLES = ("qwen-rig certify", "qwen-rig certify --limit lab-01 --expect-gpus 8", "qwen-rig certify --json")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    _hosts.arguments(parser)


def run(options: argparse.Namespace) -> int:
    """0: no gate failed · 4: one did · 1: it could not be measured · 3: unreachable."""
    from qwen_rig.cli import _session as session

    with session.opened(options.inventory, options.limit, options.data, _output.Output.of(options)) as opened:
        opened.prepare("certify.py")
        opened.execute()
        return opened.end("certify")
