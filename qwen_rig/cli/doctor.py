"""`rig doctor`: what is wrong with a host, or what a log tells: named causes, each with one next step."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from qwen_rig import doctor, exits, say
from qwen_rig.cli import _hosts, _output, _types
from qwen_rig.doctor import Finding, languages
from qwen_rig.doctor.log import split
from qwen_rig.errors import RigError
from qwen_rig.facts.state import State

if TYPE_CHECKING:
    from rich.console import RenderableType

LOG = "the log"
NONE = {True: "unknown: the doctor knows no line of this log", False: "no known problem was found"}
FOREIGN = ("the log is in another language, and this machine has no message catalogue of it: run the command again "
           "with LC_ALL=C.UTF-8 and give that log")
BLOCK = 8 << 20  # bytes; of a log that is longer, each block that was read is told
EXAMPLES = ("qwen-rig doctor lab-01", "qwen-rig doctor lab-01 --log train.log", "qwen-rig doctor < train.log")
SUMMARY = "name causes and next steps, for hosts or for a log on standard input"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    parser.add_argument("hosts", nargs="*", metavar="HOST", help="probe these; none: read a log on standard input")
    parser.add_argument("--log", metavar="FILE", type=_types.path,
                        help="a log, read together with what the one HOST tells of itself")
    _hosts.arguments(parser)


def run(options: argparse.Namespace) -> int:
    """0: no known problem was found · 1: causes found · 3: unreachable."""
    if not options.hosts and not options.limit:
        _hosts.refuse_unread(options)
        lines = _read(options.log) if options.log else _stdin()
        found = doctor.findings(lines)
        return _tell({LOG: (found, [FOREIGN] if not found and languages.foreign(lines) else [])},
                     _output.Output.of(options))
    return _of_hosts(options)


def _stdin() -> list[str]:
    if sys.stdin is None or sys.stdin.isatty():
        raise RigError("no host and no log was given", "rig doctor", "`rig doctor HOST`, or `rig doctor < some.log`")
    return _lines(sys.stdin.buffer)


def _read(path: Path) -> list[str]:
    try:
        with path.open("rb") as file:
            return _lines(file)
    except OSError as error:
        raise RigError(f"can't be read: {error.strerror}", str(path), "name another: --log FILE") from None


def _lines(file: BinaryIO) -> list[str]:
    """The log's lines; how far a long one is read is said on standard error."""
    blocks: list[bytes] = []
    while block := file.read(BLOCK):
        blocks.append(block)
        if len(blocks) > 1:
            say.err(f"reading the log: {sum(map(len, blocks)) >> 20} MB")
    return split(b"".join(blocks).decode("utf-8", "replace"))


def _of_hosts(options: argparse.Namespace) -> int:
    said = _read(options.log) if options.log else []
    limit = [*options.limit, *options.hosts]
    if said and len(limit) != 1:
        raise RigError("a log belongs to one host", "--log", "name that host alone")
    from qwen_rig.cli import _session as session
    from qwen_rig.plan import Context
    from qwen_rig.plan.env import records

    output = _output.Output.of(options)
    with session.opened(options.inventory, limit, options.data, output, table=False) as opened:
        def tell(ctx: Context) -> tuple[str, tuple[Sequence[Finding], list[str]]]:
            verified = records(ctx).verification
            failed = [check.why or "" for check in verified.failed] if verified else []
            found = doctor.findings([*said, *failed], doctor.signs(ctx.state), doctor.words(ctx.state))
            return ctx.host, (found, unknowns(ctx.state))

        told = dict(opened.look(tell, diagnose=True))
        return exits.worst([opened.status(), _tell(told, output)])


def unknowns(state: State) -> list[str]:
    """What couldn't be read, and so can't be ruled out."""
    lines = [f"not read: {part}: {problem}" for part, problem in state.problems.items()]
    log = state.kernel_log
    if log.source is None:
        lines.append(f"not read: the kernel log: {log.why_not or 'unknown'} (Xid, AER and Secure Boot lines are "
                     "in it)")
    return lines


def _tell(told: Mapping[str, tuple[Sequence[Finding], list[str]]], output: _output.Output) -> int:
    output.result({name: {"findings": [_plain(each) for each in found], "not_read": notes}
                   for name, (found, notes) in told.items()}, lambda: _shown(told))
    return exits.FAILED if any(found for found, _ in told.values()) else exits.OK


def _plain(found: Finding) -> dict[str, object]:
    """A finding for programs; their order is their rank."""
    return {key: value for key, value in asdict(found).items() if key not in ("grade", "row")}


def _shown(told: Mapping[str, tuple[Sequence[Finding], list[str]]]) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    lines: list[Text] = []

    def add(text: str, style: str = "") -> None:
        lines.append(Text(text, style=style))

    for name, (found, notes) in told.items():
        add(f"{name}: " + (f"{len(found)} found" if found else NONE[name == LOG])
                  + (", the likeliest first" if len(found) > 1 else ""), "bold")
        for each in found:
            add(f"  ✗ {each.name}", "red")
            add(f"    cause: {each.cause}\n    → {each.next}")
            if each.follows:
                add(f"    from it follows: {', '.join(each.follows)}", "dim")
            if each.against:
                add(f"    the host as it is now speaks against it: {each.against}", "yellow")
            if each.evidence:
                at = f" (line {each.line})" if name == LOG and each.line else ""
                add(f"    said{at}: {each.evidence[:200]}", "dim")
            add(f"    source: {each.source}", "dim")
        for note in notes:
            add(f"  ! {note}", "yellow")
    return Group(*lines)
