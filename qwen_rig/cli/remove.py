"""`rig remove HOST`: what qwen-rig put on a host goes again; shown first, and asked about."""

from __future__ import annotations

import argparse

from qwen_rig import exits, say
from qwen_rig.cli import _hosts, _output

SUMMARY = "remove what qwen-rig put on a host (env, caches, runs, jobs, guard, its conda), after a list and a question"
EXAMPLES = ("qwen-rig remove lab-01 --dry", "qwen-rig remove lab-01 --keep-runs")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    parser.add_argument("host", metavar="HOST", help="a host of the inventory")
    parser.add_argument("--dry", action="store_true", help="show what would go, and change nothing")
    parser.add_argument("--keep-runs", action="store_true", help="leave training runs and their data")
    parser.add_argument("--keep-conda", action="store_true", help="leave the conda that was installed for the env")
    parser.add_argument("-y", "--yes", action="store_true", help="don't ask")
    _hosts.arguments(parser, limit=False)


def run(options: argparse.Namespace) -> int:
    """0: gone, or nothing was there · 1: refused, failed, or not confirmed · 2 (--dry): something would go ·
    3: unreachable."""
    from qwen_rig.cli import _confirm
    from qwen_rig.cli import _session as session
    from qwen_rig.finetune import words
    from qwen_rig.run import leaving
    from qwen_rig.units import size

    runs, conda, output = not options.keep_runs, not options.keep_conda, _output.Output.of(options)
    with session.opened(options.inventory, [options.host], options.data, output, table=False) as opened:
        plans = opened.look_at(lambda host: leaving.look(host, runs, conda))
        tell = say.err if options.json else say.out
        for plan in plans:
            for thing in plan.things:
                tell(f"  - {plan.host}  {thing.path}  {size(thing.kib * 1024)}  {thing.why}")
            tell(f"{plan.host}: {len(plan.things)} things go, {size(sum(t.kib for t in plan.things) * 1024)}; "
                 f"what stays: {', '.join(plan.stays)}" if plan.things else f"{plan.host}: qwen-rig has nothing there")
        pending = any(plan.things for plan in plans)
        if pending and not options.dry:
            if not options.yes:
                _confirm.confirmed(f"This goes from {options.host} for good. Type its name", options.host)
            opened.work(lambda host: leaving.remove(host, runs, conda))
        status = opened.status()
    if options.json:
        say.as_json([{"form": words.FORM, "host": plan.host, "removed": not options.dry and status == exits.OK,
                      "stays": list(plan.stays),
                      "things": [{"path": t.path, "kib": t.kib, "why": t.why} for t in plan.things]} for plan in plans])
    return exits.worst([status, *([exits.CHANGES] if options.dry and pending else [])])
