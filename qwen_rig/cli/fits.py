"""`rig fits`: which Qwen sizes fit a card by LoRA and by QLoRA, with the arithmetic."""

from __future__ import annotations

import argparse
from typing import Any

from qwen_rig import exits, fits, say
from qwen_rig.cli import _hosts
from qwen_rig.errors import RigError

SUMMARY = "which Qwen sizes fit a card by LoRA and QLoRA, with the arithmetic"
NOTES = (
    "weights and adapter (rank 16, all linear layers) are counted; activations, logits and overhead are ESTIMATES",
    "batch: the largest of 16, 8, 4, 2, 1 that fits in one process on one card; c: with gradient checkpointing",
    "QLoRA takes bitsandbytes, which no stack of ours has; Qwen3 takes the stack qwen3",
)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    parser.add_argument("hosts", nargs="*", metavar="HOST", help="ask these for their (smallest) card")
    parser.add_argument("--memory", type=int, metavar="MIB", help="a card's memory instead, as nvidia-smi says it")
    parser.add_argument("--length", type=int, default=1024, metavar="TOKENS", help="of a text (default: 1024)")
    parser.add_argument("--json", action="store_true", help="as JSON on standard output")
    _hosts.arguments(parser)


def run(options: argparse.Namespace) -> int:
    """0: told · 1: bad input, or a host whose card's memory isn't known · 3: unreachable."""
    if options.length < 1 or (options.memory is not None and options.memory < 1):
        raise RigError("--memory and --length must be above 0", "rig fits")
    if options.memory is not None:
        if options.hosts or options.limit:
            raise RigError("--memory and hosts exclude each other", "rig fits", "give one of them")
        _tell({"a card": options.memory}, options)
        return exits.OK
    if not options.hosts and not options.limit:
        raise RigError("no host and no --memory", "rig fits", "`rig fits HOST`, or `rig fits --memory 32607`")
    from qwen_rig.cli import _session as session
    from qwen_rig.plan import Context

    limit = [*options.limit, *options.hosts]
    with session.opened(options.inventory, limit, options.data, options.verbose, table=False) as opened:
        def smallest(ctx: Context) -> tuple[str, int]:
            sizes = [gpu.memory_mib for gpu in ctx.gpus if gpu.memory_mib]
            if not sizes:
                raise RigError("its card's memory isn't known", "", "give it: rig fits --memory MIB")
            return ctx.host, min(sizes)

        cards = dict(opened.look(smallest, diagnose=True))
        status = opened.status()
    _tell(cards, options)
    return status


def _row(model: fits.Model, memory: int, length: int) -> dict[str, Any]:
    made: dict[str, Any] = {"model": model.name, "parameters": model.linear + model.other, "adapter": model.adapter}
    for mode, four in (("lora", False), ("qlora", True)):
        found = fits.fit(model, memory, four, length)
        least = fits.need(model, four, 1, length, True)
        made[mode] = {
            "batch": found.batch if found else None, "checkpointing": found.checkpointing if found else None,
            "need_mib": round(found.need.total) if found else None, "least_mib": round(least.total),
            "weights_mib": round(least.weights), "adapter_mib": round(least.adapter),
            "estimated_mib": round(found.need.estimate if found else least.estimate)}
    return made


def _tell(cards: dict[str, int], options: argparse.Namespace) -> None:
    rows = {name: [_row(model, memory, options.length) for model in fits.models().values()]
            for name, memory in cards.items()}
    if options.json:
        say.as_json({name: {"memory_mib": cards[name], "length": options.length, "notes": list(NOTES), "models": each}
                     for name, each in rows.items()})
        return
    from rich.table import Table

    from qwen_rig.render import console

    out = console()
    for name, each in rows.items():
        table = Table("model", "10⁹", "LoRA", "weights + adapter + estimate", "QLoRA", "weights + adapter + estimate",
                      box=None, title=f"{name}: {cards[name]} MiB, texts of {options.length} tokens",
                      title_justify="left", pad_edge=False)
        for row in each:
            cells = []
            for mode in ("lora", "qlora"):
                found = row[mode]
                batch = f"{found['batch']}{' c' if found['checkpointing'] else ''}" if found["batch"] else "no"
                total = found["need_mib"] or found["least_mib"]
                cells += [batch, f"{_g(found['weights_mib'])} + {_g(found['adapter_mib'])} + "
                                 f"{_g(found['estimated_mib'])} = {_g(total)} GiB"]
            table.add_row(row["model"].removeprefix("Qwen/"), f"{row['parameters'] / 1e9:.2f}", *cells)
        out.print(table)
    for note in NOTES:
        say.err(f"! {note}")


def _g(mib: float) -> str:
    return f"{mib / 1024:.1f}"
