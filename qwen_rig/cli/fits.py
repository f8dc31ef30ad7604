"""`rig fits`: which Qwen fits a card by LoRA, by QLoRA and in full, with what batch, and how fast it trains."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from qwen_rig import exits, fits, speed
from qwen_rig.catalog import model_config, models
from qwen_rig.catalog.rules import load_rules
from qwen_rig.cli import _hosts, _output, _types
from qwen_rig.errors import RigError
from qwen_rig.frozen import frozen

if TYPE_CHECKING:
    from rich.console import RenderableType

SUMMARY = "which Qwen fits a card by LoRA, QLoRA and in full, and how fast it trains"
EXAMPLES = ("qwen-rig fits --card 5090 --model 27B", "qwen-rig fits lab-01", "qwen-rig fits --memory 24564 --json")
NOTES = (
    "weights and adapter (rank 16, all linear layers) are counted; activations, logits, overhead, speed are ESTIMATES",
    "batch: the largest of 16, 8, 4, 2, 1 that fits in one process on one card; c: with gradient checkpointing",
)
WORDS = {"lora": "LoRA", "qlora": "QLoRA", "full": "in full"}


@frozen
class Card:
    """What is known of a card: its memory, its speed (None: nobody measured or published it), and by what a certificate
    of it differs from the estimate."""

    memory_mib: int
    name: str = "a card"
    rate: speed.Rate | None = None
    measured: float = 1.0


def arguments(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    parser.add_argument("hosts", nargs="*", metavar="HOST", help="ask these for their (smallest) card")
    parser.add_argument("--card", metavar="NAME", help="a card by its name instead: 5090, \"RTX 4090\"")
    parser.add_argument("--memory", type=_types.whole, metavar="MIB",
                        help="a card's memory instead, as nvidia-smi says it")
    parser.add_argument("--model", metavar="NAME", help="only that one: Qwen/Qwen3.6-27B, 27B, or a folder with its "
                                                        "config.json")
    parser.add_argument("--length", type=_types.whole, default=fits.LENGTH, metavar="TOKENS",
                        help=f"of a text (default: {fits.LENGTH})")
    _hosts.arguments(parser)


def run(options: argparse.Namespace) -> int:
    """0: told · 1: bad input, or a host whose card's memory isn't known · 3: unreachable."""
    chosen = list(models.models().values()) if options.model is None \
        else model_config.matching(options.model, "--model")
    ways = [options.memory is not None, options.card is not None, bool(options.hosts or options.limit)]
    if sum(ways) > 1:
        raise RigError("hosts, --card and --memory exclude each other", "rig fits", "give one of them")
    if not any(ways):
        raise RigError("no host, --card or --memory was given", "rig fits",
                       "`rig fits HOST`, or `rig fits --card 5090 --model 27B`")
    if not options.hosts and not options.limit:
        _hosts.refuse_unread(options)
        card = named(options.card) if options.card is not None else Card(options.memory)
        _tell({card.name: card}, chosen, options)
        return exits.OK
    from qwen_rig.cli import _session as session

    limit = [*options.limit, *options.hosts]
    with session.opened(options.inventory, limit, options.data, _output.Output.of(options), table=False) as opened:
        cards = dict(opened.look(_smallest, diagnose=True))
        status = opened.status()
    _tell(cards, chosen, options)
    return status


def named(text: str) -> Card:
    """The card that a user means by its name or an ending of it. Raises RigError where there is none, or none whose
    memory is known."""
    words = text.lower().split()
    rules = load_rules()
    found = {card.name: card for card in rules.gpus.values()
             if words and card.name.lower().split()[-len(words):] == words}
    if not found:
        raise RigError(f"there is no card {text!r}", "--card", "name it as nvidia-smi does, or give --memory MIB")
    known = [card for card in found.values() if card.memory_mib]
    if len(found) > 1 or not known:
        said = f"its memory isn't known here: {next(iter(found))}" if len(found) == 1 \
            else f"{text!r} means {', '.join(sorted(found))}"
        raise RigError(said, "--card", "give --memory MIB" if not known else "name one of them whole")
    card, memory = known[0], known[0].memory_mib
    assert memory is not None
    ids = [device for device, one in rules.gpus.items() if one.name == card.name]
    return Card(memory, card.name, _seen(ids) or speed.published(card.name))


def _seen(device_ids: Sequence[str | None]) -> speed.Rate | None:
    from qwen_rig.certificate.gates import load_gates

    for device in device_ids:
        row = load_gates().seen.get(device or "")
        if row and row.matmul:
            return speed.Rate(row.matmul[0], f"{row.matmul[0]:g} TFLOP/s, the least that such a card was seen to do",
                              True)
    return None


def _smallest(ctx: Any) -> tuple[str, Card]:
    """A host's smallest card, with what its certificate says."""
    from qwen_rig.certificate import store

    sizes = [gpu for gpu in ctx.gpus if gpu.memory_mib]
    if not sizes:
        raise RigError("its card's memory isn't known", "", "give it: rig fits --memory MIB")
    card = min(sizes, key=lambda gpu: gpu.memory_mib)
    rates = [rate for gpu in ctx.state.gpus if gpu.uuid and (rate := _certified(store.tflops(gpu.uuid, ctx.who)))]
    rate = (min(rates, key=lambda rate: rate.tflops, default=None) or _seen([card.device_id])
            or speed.published(card.name))
    differs = fits.measured(card.memory_mib, ctx.largest.batch) if ctx.largest else 1.0
    return ctx.host, Card(card.memory_mib, card.name, rate, differs)


def _certified(tflops: float | None) -> speed.Rate | None:
    return speed.Rate(tflops, f"{tflops:g} TFLOP/s by its certificate", True) if tflops else None


def row(model: models.Model, card: Card, length: int) -> dict[str, Any]:
    """One model on one card, as the JSON has it."""
    made: dict[str, Any] = {"model": model.name, "parameters": model.parameters, "active": model.active,
                            "adapter": model.adapter, "stack": model.ways.stack}
    for method in fits.METHODS:
        found = fits.fit(model, card.memory_mib, method, length, measured=card.measured)
        least = fits.need(model, method, 1, length, True, measured=card.measured)
        fast = speed.tokens_per_second(model, method, found.checkpointing, card.rate, found.batch * length) \
            if found and card.rate else None
        made[method] = {
            "batch": found.batch if found else None, "checkpointing": found.checkpointing if found else None,
            "need_mib": round(found.need.total) if found else None, "least_mib": round(least.total),
            "weights_mib": round(least.weights), "adapter_mib": round(least.adapter),
            "estimated_mib": round(found.need.estimate if found else least.estimate),
            "tokens_per_second": round(fast) if fast else None}
    return made


def _tell(cards: dict[str, Card], chosen: Sequence[models.Model], options: argparse.Namespace) -> None:
    rows = {name: [row(model, card, options.length) for model in chosen] for name, card in cards.items()}
    output = _output.Output.of(options)
    told = _answer if options.model is not None else _table

    def words() -> RenderableType:
        from rich.console import Group

        return Group(*(told(name, cards[name], each, options.length) for name, each in rows.items()))

    output.result({name: {"memory_mib": cards[name].memory_mib, "card": cards[name].name, "length": options.length,
                          "speed_from": rate.source if (rate := cards[name].rate) else None,
                          "measured": bool(rate and rate.measured), "notes": list(NOTES), "models": each}
                   for name, each in rows.items()}, words)
    for note in () if options.json else NOTES:  # it has them
        output.talk(f"! {note}")


def _title(name: str, card: Card, length: int) -> str:
    whose = name if card.name in ("a card", name) else f"{name} ({card.name})"
    return f"{whose}: {card.memory_mib} MiB, texts of {length} tokens"


def _table(name: str, card: Card, rows: Sequence[dict[str, Any]], length: int) -> RenderableType:
    from rich.table import Table

    table = Table("model", "10⁹", "LoRA", "weights + adapter + estimate", "QLoRA", "weights + adapter + estimate",
                  box=None, title=_title(name, card, length), title_justify="left", pad_edge=False)
    for row in rows:
        cells = []
        for method in ("lora", "qlora"):
            found = row[method]
            batch = f"{found['batch']}{' c' if found['checkpointing'] else ''}" if found["batch"] else "no"
            cells += [batch, _sum(found)]
        table.add_row(row["model"].removeprefix("Qwen/"), f"{row['parameters'] / 1e9:.2f}", *cells)
    return table


def _answer(name: str, card: Card, rows: Sequence[dict[str, Any]], length: int) -> RenderableType:
    """One model in full: does it fit, with what, and how fast."""
    lines = [_title(name, card, length)]
    for row in rows:
        lines.append(f"{row['model']} (stack {row['stack']}):")
        for method in fits.METHODS:
            lines.append(f"  {WORDS[method]:8}{_verdict(row[method], card)}")
    source = card.rate.source if card.rate else "not known for this card: qwen-rig certify measures it"
    lines.append(f"! speed: {source}")
    return "\n".join(lines)


def _verdict(found: dict[str, Any], card: Card) -> str:
    if not found["batch"]:
        return f"no: {_sum(found)} at batch 1, with gradient checkpointing"
    how = f"batch {found['batch']}{' with gradient checkpointing' if found['checkpointing'] else ''}"
    fast = f", about {found['tokens_per_second']} tokens/s" if found["tokens_per_second"] else ""
    return f"yes: {how}{fast}; {_sum(found)}"


def _sum(found: dict[str, Any]) -> str:
    return (f"{_g(found['weights_mib'])} + {_g(found['adapter_mib'])} + {_g(found['estimated_mib'])} = "
            f"{_g(found['need_mib'] or found['least_mib'])} GiB")


def _g(mib: float) -> str:
    return f"{mib / 1024:.1f}"
