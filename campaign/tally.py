"""What a campaign counts: cases by kind, and findings, each with the case that shows it."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.table import Table
from rich.text import Text

TRACEBACK, TAKEN, UNCLEAR, DIALLED = "tracebacks", "silently taken", "unclear", "dialled"
SLOW, UNCONVERGED, HALF = "slow", "next run not converged", "half-done left"
OVERLAP, CARD, EXIT, REPEATED = "overlapping jobs", "wrong cards", "untrue exit statuses", "changes in the run after"
COUNTED = (TRACEBACK, TAKEN, UNCLEAR, DIALLED, SLOW, UNCONVERGED, REPEATED, HALF, OVERLAP, CARD, EXIT)
SHOWN = 3  # findings of a kind in the table; the JSON has all


@dataclass(frozen=True)
class Finding:
    """One case that went wrong. `counted`: which of COUNTED; `case`: enough to try it again; `said`: what was seen."""

    counted: str
    kind: str
    case: str
    said: str = ""


@dataclass
class Tally:
    """Cases and findings of one campaign; several threads may add to it."""

    seed: int
    cases: Counter[str] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def thrown(self, kind: str) -> None:
        """One case more of that kind."""
        with self._lock:
            self.cases[kind] += 1

    def found(self, counted: str, kind: str, case: object, said: object = "") -> None:
        """Something that must not be."""
        assert counted in COUNTED, counted
        with self._lock:
            self.findings.append(Finding(counted, kind, _short(case), _short(said, 2000)))

    @property
    def counts(self) -> dict[str, int]:
        """How many findings of each sort."""
        found = Counter(finding.counted for finding in self.findings)
        return {counted: found[counted] for counted in COUNTED}

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {"seed": self.seed, "cases": sum(self.cases.values()), "kinds": dict(sorted(self.cases.items())),
                "counts": self.counts, "findings": [asdict(finding) for finding in self.findings]}

    def table(self) -> Table:
        """Kinds with their cases and findings, and the first findings of each."""
        table = Table("kind", "cases", "findings", box=None, pad_edge=False)
        found = Counter(finding.kind for finding in self.findings)
        for kind, cases in sorted(self.cases.items()):
            table.add_row(kind, str(cases), str(found[kind]))
        return table

    def lines(self) -> list[Text]:
        """The findings, shortest cases first, and the figures."""
        lines = []
        for kind in sorted({(finding.counted, finding.kind) for finding in self.findings}):
            of_kind = sorted((each for each in self.findings if (each.counted, each.kind) == kind),
                             key=lambda each: len(each.case))
            lines += [Text(f"✗ {each.counted} · {each.kind} · {each.case} · {each.said[:300]}")
                      for each in of_kind[:SHOWN]]
        figures = ", ".join(f"{count} {counted}" for counted, count in self.counts.items())
        return [*lines, Text(f"seed {self.seed} · {sum(self.cases.values())} cases · {figures}")]


Case = Callable[[], object]


def _short(value: object, most: int = 400) -> str:
    try:
        text = value if isinstance(value, str) else repr(value)
    except (ValueError, RecursionError):
        text = f"a {type(value).__name__} that can't be shown"
    return text if len(text) <= most else f"{text[:most // 2]}… {len(text)} characters …{text[-most // 2:]}"
