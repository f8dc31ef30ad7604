"""`rig plan`: what would change, and why; nothing is changed."""

from __future__ import annotations

import argparse

from qwen_rig import say
from qwen_rig.cli import _hosts, _output, _types

SUMMARY = "what would change on each host, and why; changes nothing"
EXAMPLES = ("qwen-rig plan", "qwen-rig plan --limit lab-01 -v", "qwen-rig plan --save tonight.json",
            "qwen-rig plan --skip driver --skip reboot --json")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    _hosts.arguments(parser)
    _hosts.steps(parser)
    parser.add_argument("--save", metavar="FILE", type=_types.path,
                        help="keep the plan; `rig apply FILE` then does this and nothing else")


def run(options: argparse.Namespace) -> int:
    """0: nothing to do · 2: changes pending · 1: refused or failed · 3: unreachable."""
    from qwen_rig.cli import _saved
    from qwen_rig.cli import _session as session

    output = _output.Output.of(options)
    with session.opened(options.inventory, options.limit, _hosts.data(options), output, output.screens(plans=True),
                        table=not options.json) as opened:
        opened.prepare()
        document = opened.document()
        if options.save:
            _saved.save(options.save, document)
            output.talk(f"saved: rig apply {options.save}")
        opened.close()
        if options.json:  # docs/plan.schema.json
            say.as_json(document)
        return opened.status(pending=True)
