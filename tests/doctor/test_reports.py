"""Public reports of failures, each told rightly or not at all, and healthy logs, of which none has a finding.

A report is a file of reports/: its source, what is right there, the words that the leading cause or its step must say,
the words that nothing may say, what the doctor said of it before it had voices (`before`), and its lines. `name` null:
an honest "unknown". Healthy logs are files of healthy/, their first line says whose they are.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from qwen_rig import doctor

HERE = Path(__file__).parent
REPORTS = sorted((HERE / "reports").glob("*.yml"))
HEALTHY = sorted((HERE / "healthy").glob("*.txt"))


def _report(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def test_there_are_as_many_as_we_say() -> None:
    assert len([path for path in REPORTS if path.name.startswith("found-")]) >= 20 and len(HEALTHY) >= 50


@pytest.mark.parametrize("path", REPORTS, ids=[path.stem for path in REPORTS])
def test_a_report_is_told_rightly_or_not_at_all(path: Path) -> None:
    report = _report(path)
    told = doctor.findings(report["log"].splitlines())
    lead = f"{told[0].cause} → {told[0].next}" if told else ""
    assert (told[0].name if told else None) == report["name"], told
    for words in report["says"]:
        assert any(word.lower() in lead.lower() for word in words.split("|")), (words, lead)
    for word in report["never"]:
        assert not any(word.lower() in f"{each.cause} → {each.next}".lower() for each in told), (word, told)


@pytest.mark.parametrize("path", REPORTS, ids=[path.stem for path in REPORTS])
def test_a_report_is_told_the_same_inside_a_long_log_with_prefixes(path: Path) -> None:
    """Launchers and log drivers put things before each line, and training writes thousands of lines around it."""
    report = _report(path)
    around = [f"step {number} of 600 done" for number in range(600)]
    lines = [f"[rank0]: {line}" for line in report["log"].splitlines()]
    told = doctor.findings([*around, *lines, *around])
    assert (told[0].name if told else None) == report["name"], told


@pytest.mark.parametrize("path", HEALTHY, ids=[path.stem for path in HEALTHY])
def test_a_healthy_log_has_no_finding(path: Path) -> None:
    source, *lines = path.read_text().splitlines()
    assert source.startswith("# ") and len(source) > 5
    assert not doctor.findings(lines)
