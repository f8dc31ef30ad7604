"""`rig plan`: what would change, and why; nothing is changed."""

from __future__ import annotations

import argparse

from qwen_rig import say
from qwen_rig.cli import _hosts, _types

SUMMARY = "what would change on each host, and why; changes nothing"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    _hosts.arguments(parser)
    parser.add_argument("--json", action="store_true",
                        help="the plans as JSON on standard output (docs/plan.schema.json documents it)")
    parser.add_argument("--save", metavar="FILE", type=_types.path,
                        help="keep the plan; `rig apply FILE` then does this and nothing else")


def run(options: argparse.Namespace) -> int:
    """0: nothing to do · 2: changes pending · 1: refused or failed · 3: unreachable."""
    from qwen_rig.cli import _saved
    from qwen_rig.cli import _session as session

    with session.opened(options.inventory, options.limit, options.data, options.verbose,
                        table=not options.json) as opened:
        opened.prepare()
        document = opened.document()
        if options.save:
            _saved.save(options.save, document)
            say.err(f"saved: rig apply {options.save}")
        if options.json:
            say.as_json(document)
        return opened.status(pending=True)
