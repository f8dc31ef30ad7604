"""`rig certificate`: show, compare and draw what `rig certify` has kept; read what was measured without it."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from qwen_rig import exits
from qwen_rig.cli import _output, _types
from qwen_rig.errors import RigError

if TYPE_CHECKING:
    from qwen_rig.certificate.model import Certificate

SUMMARY = "certificates of cards: list, show, diff, html, read"
EXAMPLES = ("qwen-rig certificate list", "qwen-rig certificate show lab-01", "qwen-rig certificate diff lab-01",
            "qwen-rig certificate html lab-01 -o card.html", "qwen-rig certificate read measured.json --host lab-01")
WHICH = "UUID, its beginning, the host's name, or a certificate's file"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Its own verbs."""
    verbs = parser.add_subparsers(dest="what", required=True, metavar="WHAT", parser_class=type(parser))
    verbs.add_parser("list", help="the cards that have certificates, and how the last one ended")
    show = verbs.add_parser("show", help="one certificate")
    show.add_argument("card", help=WHICH)
    diff = verbs.add_parser("diff", help="what has changed: since the one before, or between two")
    diff.add_argument("card", help=WHICH)
    diff.add_argument("other", nargs="?", help="the later one; without it, CARD's last is compared with the one before")
    html = verbs.add_parser("html", help="one page with plots, complete in itself")
    html.add_argument("card", help=WHICH)
    html.add_argument("-o", "--output", type=_types.path, metavar="FILE",
                      help="where it goes (default: UUID.html here)")
    read = verbs.add_parser("read", help="judge and keep what qwen_rig/host/certify.py measured on a host by hand")
    read.add_argument("measured", type=_types.path, help="what it wrote with --out")
    read.add_argument("--host", help="the name to keep it under, as the inventory has it; without it, what the file "
                                     "says, and no batch is set by it")
    read.add_argument("--expect-gpus", type=_types.whole, metavar="N",
                      help="how many cards must have a certificate: another number fails")
    read.add_argument("--stack", help="judge torch and driver by this stack (default: nothing is expected of torch)")


def run(options: argparse.Namespace) -> int:
    """0: done · 1: bad input · 4 (read): a gate failed, or another number of cards."""
    does = {"list": _list, "show": _show, "diff": _diff, "html": _html, "read": _read}[options.what]
    return does(options, _output.Output.of(options))


def _list(options: argparse.Namespace, output: _output.Output) -> int:
    from qwen_rig.certificate import store, table
    from qwen_rig.certificate.diff import day

    rows = [(uuid, last, len(store.history(uuid, last.identity)))
            for uuid in store.cards() for last in store.hosts(uuid).values()]
    output.result([{"uuid": uuid, "host": last.host, "name": last.name, "overall": last.overall, "began": last.began,
                    "kept": kept} for uuid, last, kept in rows], lambda: "\n".join(
        f"{uuid}  {last.host}  {last.name}  {last.overall}  {day(last.began)}  ({kept} kept; {table.summary(last)})"
        for uuid, last, kept in rows))
    return exits.OK


def _show(options: argparse.Namespace, output: _output.Output) -> int:
    from qwen_rig.certificate import store, table

    found = store.open_(options.card)
    output.result(found.to_json(), lambda: table.render(found))  # docs/certificate.schema.json
    return exits.OK


def _pair(card: str, other: str | None) -> tuple[Certificate, Certificate]:
    """(the earlier, the later). Raises RigError."""
    from qwen_rig.certificate import store

    if other:
        old, new = store.open_(card), store.open_(other)
        if old.uuid != new.uuid:
            raise RigError(f"these are two cards: {old.uuid} ({old.host}) and {new.uuid} ({new.host})", "",
                           "name two certificates of one card")
        return old, new
    new = store.open_(card)
    before = store.before(new)
    if before is None:
        raise RigError(f"there is no certificate of {new.uuid} in {new.host} before this one", "",
                       "take another: rig certify")
    return before, new


def _diff(options: argparse.Namespace, output: _output.Output) -> int:
    from qwen_rig.certificate import diff, table
    from qwen_rig.certificate.gates import load_gates

    old, new = _pair(options.card, options.other)
    found = diff.changes(old, new, load_gates())
    output.result({"uuid": new.uuid, "host": new.host, "old": old.began, "new": new.began,
                   "changes": [asdict(change) for change in found]}, lambda: table.difference(old, new, found))
    return exits.OK


def _html(options: argparse.Namespace, output: _output.Output) -> int:
    from qwen_rig.certificate import diff, page, store
    from qwen_rig.certificate.gates import load_gates

    new = store.open_(options.card)
    old = store.before(new)
    text = page.page(new, old, diff.changes(old, new, load_gates()) if old else ())
    target = options.output or Path(f"{new.uuid or new.host}.html")
    try:
        target.write_text(text, encoding="utf-8")
    except OSError as error:
        raise RigError(f"the page can't be written: {error.strerror}", str(target), "name another file: -o") from None
    output.result({"page": str(target.absolute())}, lambda: str(target))
    return exits.OK


def _read(options: argparse.Namespace, output: _output.Output) -> int:
    from rich.console import Group

    from qwen_rig.catalog.stack import load_stack
    from qwen_rig.certificate import judge, record
    from qwen_rig.certificate.model import read_json
    from qwen_rig.domain import Identity

    stack = load_stack(options.stack) if options.stack else None
    if stack:
        stack.check()
    measured = read_json(options.measured, "name a file that certify.py --out wrote")
    taken = record.take(measured, stack, Identity(options.host) if options.host else None, where=str(options.measured))
    output.result([each.new.to_json() for each in taken], lambda: Group(*(each.told() for each in taken)))
    for text in judge.silent(measured):
        output.talk(f"{text}: the GPU is lost, unless that host is a container that wasn't given the GPU")
    if other := record.miscounted(taken, options.expect_gpus):
        output.talk(f"{other} · {options.measured} · see `nvidia-smi -L` and `lspci -d 10de:` on that host, or correct "
                    "--expect-gpus")
    return exits.VERIFICATION if other or any(each.new.overall == "fail" for each in taken) else exits.OK
