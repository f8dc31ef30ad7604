"""`rig eval NAME`: the loss on the eval split, and the model's and the adapter's answers side by side."""

from __future__ import annotations

import argparse

from qwen_rig import exits, say
from qwen_rig.cli import _types, runs
from qwen_rig.errors import RigError
from qwen_rig.finetune import record, words
from qwen_rig.finetune.record import Record

SUMMARY = "the loss on the eval split, and the model's and the adapter's answers side by side, made on the host"
EXAMPLES = ("qwen-rig eval support", "qwen-rig eval support --prompt 'What do you sell?' --json")
MOST_PROMPTS, LONGEST = 20, 8000


def arguments(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    parser.add_argument("name", metavar="NAME", help="a run's name")
    parser.add_argument("--prompt", action="append", default=[], metavar="TEXT",
                        help="ask both this; may be given again (default: of three samples of the eval split)")
    parser.add_argument("--tokens", type=_types.whole, default=128, metavar="N", help="of an answer (default: 128)")
    parser.add_argument("--samples", type=_types.whole, default=200, metavar="N",
                        help="of the eval split, at most (default: 200)")
    runs.general(parser)


def run(options: argparse.Namespace) -> int:
    """0: told · 1: no such run, nothing trained yet, or it failed · 3: unreachable."""
    kept = record.load(record.checked(options.name))
    if len(options.prompt) > MOST_PROMPTS or any(not each.strip() or len(each) > LONGEST for each in options.prompt):
        raise RigError("a prompt is empty or too long, or these are too many", "--prompt",
                       f"{MOST_PROMPTS} at most, of 1 to {LONGEST} letters")
    from qwen_rig.run import fetching

    status = runs.on_host(kept, options, lambda host: fetching.evaluate(
        host, kept, options.prompt, options.tokens, options.samples))
    if status == exits.OK:
        _tell(record.load(kept.name), options.json)
    return status


def _tell(kept: Record, as_json: bool) -> None:
    made = kept.evaluation
    if as_json:
        say.as_json({"form": words.FORM, "run": kept.name, **made})
        return
    from rich.table import Table

    from qwen_rig.render import out

    before = f", before training {made['loss_base']:.3f}" if made["loss_base"] is not None else ""
    say.out(f"{kept.name}, step {made['step']:.0f}: loss {made['loss']:.3f}{before} "
            f"({made['samples']:.0f} samples of the {made['split']} split)")
    table = Table("prompt", "the model before", "the adapter", show_lines=True)
    for row in made["answers"]:
        table.add_row(*(row[name] or "-" for name in ("prompt", "base", "adapter")))
    out().print(table)
