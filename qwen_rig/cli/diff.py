"""`rig diff`: what has changed on the hosts since the last apply from here, not by it."""

from __future__ import annotations

import argparse

from qwen_rig import exits
from qwen_rig.cli import _hosts, _output

SUMMARY = "what others have changed on each host since your last apply"
EXAMPLES = ("qwen-rig diff", "qwen-rig diff --limit lab-01 --json")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    _hosts.arguments(parser)


def run(options: argparse.Namespace) -> int:
    """0: nothing · 2: something · 1: a host can't be read · 3: unreachable."""
    from rich.console import Group

    from qwen_rig import render
    from qwen_rig.cli import _session as session
    from qwen_rig.deploy.planning import make_plan
    from qwen_rig.plan.document import of_drift

    output = _output.Output.of(options)
    with session.opened(options.inventory, options.limit, options.data, output) as opened:
        plans = opened.look(make_plan)
        output.result({plan.host: of_drift(plan) for plan in plans}, lambda: Group(*map(render.changed, plans)))
        return exits.worst([opened.status(), *(exits.CHANGES for plan in plans if plan.drift)])
