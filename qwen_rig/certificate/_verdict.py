"""What the judges share: a check's words, and the case that they decide on."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Any

from packaging.version import InvalidVersion, Version

from qwen_rig.catalog.rules import GpuModel, Rules
from qwen_rig.catalog.stack import Stack
from qwen_rig.certificate.gates import Gate, Gates, Seen
from qwen_rig.certificate.model import Check, Number, finite
from qwen_rig.facts.records import EnvRecord
from qwen_rig.frozen import frozen

NONE_ON_RECORD = "no expectation on record"
UNJUDGED = "measured, and not judged: nothing is known to hold it against"
ORDER = ("fail", "warn", "pass")


@frozen
class Case:
    """One card's measurements, and what they are judged by."""

    card: Mapping[str, Any]
    host: Mapping[str, Any]  # driver, kernel_log, group, system
    gates: Gates
    rules: Rules
    stack: Stack | None
    gpu: bool  # whether a GPU is expected to answer
    built: EnvRecord | None = None  # the record of the env that measured (.rig/env.json)

    def found(self, name: str) -> Mapping[str, Any]:
        """A check's raw result; not run where the program didn't write one."""
        places = (self.card["checks"], self.host["group"], self.host)
        why = "the program on the host didn't measure it" if self.card["uuid"] else "no GPU"
        return next((place[name] for place in places if isinstance(place.get(name), dict)),
                    {"status": "not_run", "why": why})

    def data(self, name: str) -> Mapping[str, Any]:
        """What a check measured, {} where it measured nothing."""
        return self.found(name).get("data") or {}

    @property
    def pci_id(self) -> str | None:
        """`10de:2330`, by /sys, else as nvidia-smi says it."""
        pci, smi = self.data("identity").get("pci") or {}, self.card["smi"]
        if pci.get("vendor") and pci.get("device"):
            return f"{str(pci['vendor'])[2:]}:{str(pci['device'])[2:]}".lower()
        said = str(smi.get("pci.device_id") or "")
        return f"{said[6:10]}:{said[2:6]}".lower() if len(said) == 10 and said.startswith("0x") else None

    @property
    def model(self) -> GpuModel | None:
        return self.rules.gpu(self.pci_id) if self.pci_id else None

    @property
    def seen(self) -> Seen | None:
        return self.gates.seen.get(self.pci_id or "")

    @property
    def lock(self) -> tuple[str | None, str | None]:
        """(lock, stack) of the env on the host by its own record; without one, those that are wanted."""
        if self.built and self.built.lock_sha256:
            return self.built.lock_sha256[:12], self.built.stack or None
        return (self.stack.lock_id, self.stack.name) if self.stack else (None, None)

    @property
    def busy(self) -> str:
        """Who else was at work on the card before we began, as words; '' for nobody."""
        gate, data = self.gates.checks["other_users"], self.data("other_users")
        said = [f"{one['name']} (pid {one['pid']})" for one in data.get("processes", [])]
        percent, memory = data.get("utilization") or 0, data.get("memory_mib") or 0
        if percent >= gate["utilization_pct"]:
            said.append(f"{percent:g} % busy")
        if memory >= gate["memory_mib"]:
            said.append(f"{memory:g} MiB in use")
        return ", ".join(said)


def version(text: Any) -> Version | None:
    """A version, None where the text is none."""
    try:
        return Version(str(text)) if text else None
    except InvalidVersion:
        return None


def worst(levels: list[str]) -> str:
    """The gravest of pass, warn and fail; pass for none."""
    return next((level for level in ORDER if level in levels), "pass")


def check(gate: Gate, status: str, measured: str, expected: str = "", why: str = "", **more: Any) -> Check:
    """A judged check; the gate's source stands behind its expectation. What isn't finite is told, and not plotted."""
    more["series"] = {name: finite(points) for name, points in more.get("series", {}).items()}
    return Check(gate.name, gate.title, status, measured, expected, more.pop("source", gate.source),
                 "" if status == "pass" else why, **more)


def against(case: Case, gate: Gate, value: float, unit: str, seen: tuple[float, float] | None, source: str,
            ) -> tuple[str, str, str, str]:
    """(status, expectation, source, why) of a speed against what this card model was seen to do.

    Without a number on record it could not have failed, so it is no pass either; while others use the card, too little
    is no fault of the card.
    """
    if seen is None:
        return "warn", NONE_ON_RECORD, "qwen_rig/data/seen.yml", UNJUDGED
    least = seen[0]
    range_ = f"{least:.0f}" if seen[0] == seen[1] else f"{seen[0]:.0f}–{seen[1]:.0f}"
    expected = f"seen: {range_} {unit}; at least {100 * gate['warn_below']:.0f} % of it"
    share = value / least
    if share >= gate["warn_below"]:
        return "pass", expected, source, ""
    why = f"{100 * share:.0f} % of what this model was seen to do"
    if case.busy:
        return "warn", expected, source, f"{why}, while others use the card ({case.busy})"
    return ("fail" if share < gate["fail_below"] else "warn"), expected, source, why


def number(label: str, value: float | None, unit: str, better: str = "higher") -> tuple[Number, ...]:
    """A number to compare by, none where there is no value, or none that is finite."""
    return () if value is None or not isfinite(value) else (Number(label, float(value), unit, better),)
