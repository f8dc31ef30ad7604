"""What has changed between two certificates of one card. Pure."""

from __future__ import annotations

from time import gmtime, strftime

from qwen_rig.certificate.gates import Gates
from qwen_rig.certificate.model import Certificate, Check
from qwen_rig.frozen import frozen

WORDS = {"not_run": "not run"}
RANK = {"pass": 0, "not_run": 1, "warn": 2, "fail": 3}


@frozen
class Change:
    """One difference, in the words that the user reads; `worse` None: neither better nor worse."""

    check: str
    text: str
    worse: bool | None


def changes(old: Certificate, new: Certificate, gates: Gates) -> list[Change]:
    """Differences that count: numbers beyond their gate's `changed_pct`, facts, outcomes; in the gates' order."""
    found = [change for name in ("driver", "cuda", "lock", "program") if (change := _environment(old, new, name))]
    for check in new.checks:
        before = old.check(check.name)
        if before is None:
            continue
        gate = gates.checks.get(check.name)
        limits = gate.limits if gate else {}
        found += _numbers(before, check, limits.get("changed_pct", gates.changed_pct), limits.get("changed_c"))
        for label, value in check.facts.items():
            was = before.facts.get(label)
            if was is not None and was != value and label != "driver":
                found.append(Change(check.name, f"{label} {_arrow(was, value)}", None))
        if before.status != check.status:
            text = f"{check.title}: {WORDS.get(before.status, before.status)} → {WORDS.get(check.status, check.status)}"
            found.append(Change(check.name, text, RANK[check.status] > RANK[before.status]))
    return found


def _environment(old: Certificate, new: Certificate, name: str) -> Change | None:
    was, now = old.environment.get(name), new.environment.get(name)
    if was == now or not was or not now:
        return None
    words = {"lock": "the env's lock", "program": "measured by another version of the program,"}.get(name, name)
    return Change("environment", f"{words} {was} → {now}", None)


def _arrow(was: str, now: str) -> str:
    """`gen 5 ×16 → ×8`: what both begin with, once."""
    old, new = was.split(" "), now.split(" ")
    same = 0
    while same < min(len(old), len(new)) - 1 and old[same] == new[same]:
        same += 1
    return f"{was} → {' '.join(new[same:])}"


def _numbers(before: Check, check: Check, percent: float, degrees: float | None) -> list[Change]:
    found = []
    old = {number.label: number for number in before.numbers}
    for number in check.numbers:
        was = old.get(number.label)
        if was is None or was.unit != number.unit:
            continue
        if degrees is not None and number.unit == "°C":
            if abs(number.value - was.value) < degrees:
                continue
            text = f"{number.label} {was.value:.0f} → {number.value:.0f} °C"
        else:
            if was.value == 0 or abs(number.value / was.value - 1) * 100 < percent:
                continue
            part = 100 * (number.value / was.value - 1)
            text = f"{number.label} {'+' if part > 0 else '−'}{abs(part):.0f} %"
        up = number.value > was.value
        worse = None if number.better == "neither" else up if number.better == "lower" else not up
        found.append(Change(check.name, text, worse))
    return found


def day(began: int) -> str:
    """`3 Nov` of this or `3 Nov 2025` of another year, in UTC."""
    then = gmtime(began)
    this_year = then.tm_year == gmtime().tm_year
    return f"{then.tm_mday} {strftime('%b' if this_year else '%b %Y', then)}"


def headline(old: Certificate, new: Certificate, found: list[Change]) -> str:
    """All changes in a line: `bf16 −9 % since 3 Nov; PCIe gen 5 ×16 → ×8`."""
    since = f"since {day(old.began)}"
    if not found:
        return f"no change {since}"
    return "; ".join([f"{found[0].text} {since}", *(change.text for change in found[1:])])
