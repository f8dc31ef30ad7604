"""Measurements in, certificates kept and compared: what deploy/certify.py and `rig certificate read` both do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from qwen_rig.catalog.rules import load_rules
from qwen_rig.catalog.stack import Stack
from qwen_rig.certificate import diff, judge, store, table
from qwen_rig.certificate.diff import Change
from qwen_rig.certificate.gates import load_gates
from qwen_rig.certificate.model import Certificate
from qwen_rig.domain import Identity
from qwen_rig.facts.records import EnvRecord
from qwen_rig.frozen import frozen


@frozen
class Taken:
    """One new certificate, where it is kept (None: nowhere), and the one before it."""

    new: Certificate
    path: Path | None
    old: Certificate | None
    changes: list[Change]

    def told(self) -> RenderableType:
        """The table, what has changed since the last, and where it is."""
        lines: list[RenderableType] = [table.render(self.new)]
        if self.old:
            lines.append(Text(f"since the last: {diff.headline(self.old, self.new, self.changes)}"))
        where = f"kept: {self.path}" if self.path else "no card, so no certificate is kept"
        return Group(*lines, Text(where, overflow="ignore", no_wrap=True))  # a path must survive copying

    @property
    def failed(self) -> list[str]:
        """The gates that failed, in words."""
        return [f"{check.title}: {check.why or check.measured}" for check in self.new.of("fail")]


def miscounted(taken: Sequence[Taken], wanted: int | None) -> str | None:
    """`1 GPU certified, 2 expected`; None where as many cards as are wanted have a certificate, or any number will do.
    Each card counts once."""
    here = len({each.new.uuid for each in taken} - {None})
    return None if wanted in (None, here) else f"{here} GPU{'s' * (here != 1)} certified, {wanted} expected"


def take(measured: Any, stack: Stack | None, host: Identity | None, gpu: bool = True, where: str = "measurements",
         built: EnvRecord | None = None) -> list[Taken]:
    """Judge, compare with the last, keep. `built`: the record of the env that measured. Raises RigError."""
    gates, taken = load_gates(), []
    for new in judge.certificates(measured, gates, load_rules(), stack, host, gpu, where, built):
        old = store.before(new)
        found = diff.changes(old, new, gates) if old else []
        taken.append(Taken(new, store.keep(new), old, found))
    return taken
