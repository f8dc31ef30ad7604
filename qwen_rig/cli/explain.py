"""`rig explain HOST STEP`: facts → rules → decision, each with its source."""

from __future__ import annotations

import argparse

from qwen_rig.cli import _hosts

SUMMARY = "why a step of a host's plan is what it is: facts, rules, decision, with sources"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    from qwen_rig.deploy import ORDER

    parser.add_argument("host", metavar="HOST", help="a host of the inventory")
    parser.add_argument("step", metavar="STEP", choices=ORDER, help=", ".join(ORDER))
    _hosts.arguments(parser, limit=False)


def run(options: argparse.Namespace) -> int:
    """0: explained · 1: no such host, or it can't be read · 3: unreachable."""
    from qwen_rig import render
    from qwen_rig.cli import _session as session
    from qwen_rig.deploy.planning import explain, make_plan

    with session.opened(options.inventory, [options.host], options.data) as opened:
        for told in opened.look(lambda ctx: render.explanation(explain(ctx, make_plan(ctx), options.step))):
            render.out().print(told)
        return opened.status()
