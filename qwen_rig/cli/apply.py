"""`rig apply`: show the plan, ask, make it so. With a saved plan: that plan, or nothing."""

from __future__ import annotations

import argparse
import shlex

from qwen_rig.cli import _hosts, _output, _types
from qwen_rig.errors import RigError

SUMMARY = "show the plan, ask, make its changes, and test the env"
EXAMPLES = ("qwen-rig apply", "qwen-rig apply --limit lab-01 --yes", "qwen-rig apply tonight.json",
            "qwen-rig apply --only verification --data verification=always")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    parser.add_argument("plan", nargs="?", type=_types.path, metavar="PLAN",
                        help="a plan that `rig plan --save` wrote: done without a question, or refused where the "
                             "host has changed since")
    _hosts.arguments(parser)
    _hosts.steps(parser)
    parser.add_argument("-y", "--yes", action="store_true", help="don't ask")


def run(options: argparse.Namespace) -> int:
    """0: done, or nothing to do · 1: failed, refused, or not confirmed · 3: unreachable · 4: verification failed."""
    from qwen_rig.cli import _confirm, _saved
    from qwen_rig.cli import _session as session

    inventory, limit, data, saved = options.inventory, options.limit, _hosts.data(options), None
    if options.plan:
        if options.inventory or limit or data:
            raise RigError("-i, --limit, --data, --only and --skip can't be given with a saved plan", str(options.plan),
                           "it holds to the hosts and knobs that it was made for")
        saved = _saved.load(options.plan)
        inventory, limit, data = saved["inventory"], saved["limit"], saved["data"]
    output = _output.Output.of(options)
    screens = output.screens(asked=not (options.yes or saved))
    with session.opened(inventory, limit, data, output, screens, saved=saved) as opened:
        if saved:  # it holds for hosts that nothing has changed since; after a beginning, only a plan made anew goes on
            opened.run.ender.again = shlex.join(["qwen-rig", "apply", "-i", inventory, *_hosts.words(limit, data)])
        opened.prepare()
        if not (options.yes or saved):
            _confirm.confirmed(*_confirm.question(opened.plans()))
        opened.execute(ahead=True)
        return opened.end("apply")
