"""`rig undo`: the env before the last build, back in a second."""

from __future__ import annotations

import argparse

from qwen_rig import say
from qwen_rig.cli import _hosts, _output

SUMMARY = "switch back to the env before the last build; nothing else is changed"
EXAMPLES = ("qwen-rig undo --limit lab-01", "qwen-rig undo --limit lab-01 --yes --json")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    _hosts.arguments(parser)
    parser.add_argument("-y", "--yes", action="store_true", help="don't ask")


def run(options: argparse.Namespace) -> int:
    """0: gone back · 1: nothing to go back to, failed, or not confirmed · 3: unreachable."""
    from qwen_rig.cli import _confirm
    from qwen_rig.cli import _session as session

    output = _output.Output.of(options)
    with session.opened(options.inventory, options.limit, options.data, output) as opened:
        opened.prepare("undo.py")
        plans = opened.plans()
        for plan in plans:
            step = plan.step("undo")
            say.err(f"{plan.host}  {step.title}: {step.now} → {step.wanted}")
        if plans and not options.yes:
            _confirm.confirmed("Go back? Type yes", "yes")
        opened.execute()
        opened.afterwards()
        return opened.end("undo")
