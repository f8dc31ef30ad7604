"""`rig diff`: what has changed on the hosts since the last apply from here, not by it."""

from __future__ import annotations

import argparse

from qwen_rig import exits
from qwen_rig.cli import _hosts

SUMMARY = "what has changed on each host since the last apply from here, not by it"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    _hosts.arguments(parser)


def run(options: argparse.Namespace) -> int:
    """0: nothing · 2: something · 1: a host can't be read · 3: unreachable."""
    from qwen_rig import render
    from qwen_rig.cli import _session as session
    from qwen_rig.deploy.planning import make_plan

    with session.opened(options.inventory, options.limit, options.data) as opened:
        seen = opened.look(lambda ctx: (bool((plan := make_plan(ctx)).drift), render.changed(plan)))
        for _, told in seen:
            render.out().print(told)
        return exits.worst([opened.status(), *(exits.CHANGES for drift, _ in seen if drift)])
