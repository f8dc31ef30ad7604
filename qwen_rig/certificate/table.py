"""A certificate and a difference for people: rich tables, of the same words as the JSON."""

from __future__ import annotations

from collections.abc import Sequence
from time import gmtime, strftime

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from qwen_rig.certificate.diff import WORDS, Change, headline
from qwen_rig.certificate.model import Certificate, Check

EMULATED = "This card is EMULATED by the testbed: nothing here is proved of any real one."
SYMBOL = {"pass": "✓", "warn": "!", "fail": "✗", "not_run": "·"}
STYLE = {"pass": "green", "warn": "yellow", "fail": "red", "not_run": "dim", "partial": "yellow"}


def title(certificate: Certificate) -> str:
    """`lab-01 · NVIDIA H100 80GB HBM3 · GPU-f784… · pass`."""
    return f"{certificate.host} · {certificate.name} · {certificate.uuid or 'no UUID'}"


def summary(certificate: Certificate) -> str:
    """`24 pass, 1 warn, 3 not run`."""
    counts = [(status, len(certificate.of(status))) for status in ("fail", "warn", "pass", "not_run")]
    return ", ".join(f"{count} {WORDS.get(status, status)}" for status, count in counts if count)


def said(check: Check) -> str:
    """What was measured, and why it isn't a pass."""
    return " — ".join(part for part in (check.measured, check.why) if part)


def environment(certificate: Certificate) -> str:
    """The triple in a line."""
    known = certificate.environment
    return (f"driver {known.get('driver') or '?'} · CUDA {known.get('cuda') or '?'} · "
            f"lock {known.get('lock') or 'none'} (stack {known.get('stack') or 'none'}) · "
            f"torch {known.get('torch') or '?'}")


def render(certificate: Certificate) -> RenderableType:
    """The whole certificate."""
    head = Text.assemble((title(certificate), "bold"), "  ", (certificate.overall, STYLE[certificate.overall]))
    when = strftime("%Y-%m-%d %H:%M UTC", gmtime(certificate.began))
    lines: list[RenderableType] = [head, Text(f"{when}, {certificate.seconds:.0f} s · {environment(certificate)}",
                                              style="dim")]
    if certificate.emulated:
        lines.append(Text(f"! {EMULATED}", style="yellow"))
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for column, ratio in (("", None), ("check", None), ("measured", 3), ("expected", 2)):
        table.add_column(column, ratio=ratio, overflow="fold", no_wrap=ratio is None)
    for check in certificate.checks:
        status = check.status
        word = "" if status == "pass" else f"{WORDS.get(status, status)}: "
        table.add_row(Text(SYMBOL[status], style=STYLE[status]), Text(check.title), Text(word + said(check),
                      style="" if status == "pass" else STYLE[status]), Text(check.expected, style="dim"))
    lines += [table, Text(summary(certificate), style="bold")]
    return Group(*lines)


def difference(old: Certificate, new: Certificate, found: Sequence[Change]) -> RenderableType:
    """Two certificates' headline, and each change on a line of its own."""
    lines: list[RenderableType] = [Text.assemble((title(new), "bold")), Text(headline(old, new, list(found)))]
    for change in found:
        style = {True: "red", False: "green", None: ""}[change.worse]
        sign = {True: "−", False: "+", None: "~"}[change.worse]
        lines.append(Text(f"  {sign} {change.text}", style=style))
    return Group(*lines)
