"""`rig explain HOST STEP`: facts → rules → decision, each with its source."""

from __future__ import annotations

import argparse

from qwen_rig.cli import _hosts, _output
from qwen_rig.deploy import ORDER

SUMMARY = "why a host's plan has a step as it is: the facts, the rules and their sources"
EXAMPLES = ("qwen-rig explain lab-01 driver", "qwen-rig explain lab-01 flash_attn --data flash_attn=build")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    parser.add_argument("host", metavar="HOST", help="a host of the inventory")
    parser.add_argument("step", metavar="STEP", choices=ORDER, help=", ".join(ORDER))
    _hosts.arguments(parser, limit=False)


def run(options: argparse.Namespace) -> int:
    """0: explained · 1: no such host, or it can't be read · 3: unreachable."""
    from rich.console import Group

    from qwen_rig import render
    from qwen_rig.cli import _session as session
    from qwen_rig.deploy.planning import explain, make_plan

    output = _output.Output.of(options)
    with session.opened(options.inventory, [options.host], options.data, output) as opened:
        found = opened.look(lambda ctx: explain(ctx, make_plan(ctx), options.step))
        output.result({told.host: told.to_json() for told in found}, lambda: Group(*map(render.explanation, found)))
        return opened.status()
