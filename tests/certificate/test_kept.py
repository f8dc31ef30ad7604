"""Kept, shown, compared, drawn: certificates of synthesized measurements through `qwen-rig certificate`."""

from __future__ import annotations

import html
import json
import math
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jsonschema
import pytest

from qwen_rig.certificate import diff, store
from qwen_rig.certificate.gates import load_gates
from qwen_rig.cli import main
from qwen_rig.domain import Identity

from .synthesized import UUID, h100

LAB = Identity("lab-01")
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "certificate.schema.json").read_text())


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("COLUMNS", "160")
    return tmp_path


def read(folder: Path, began: int, spoil: Callable[[dict[str, Any]], Any] = lambda checks: None, *more: str) -> int:
    """Take a certificate by `rig certificate read`."""
    measured = h100()
    measured["began"] = began
    spoil(measured["cards"][0]["checks"])
    path = folder / "measured.json"
    path.write_text(json.dumps(measured))
    return main(["certificate", "read", str(path), "--host", "lab-01", "--stack", "guide", *more])


def slower(checks: dict[str, Any]) -> None:
    """A slot of half the lanes, and 9 per cent less."""
    for row in checks["matmul"]["data"]["rows"]:
        row["tflops"] *= 0.91
    for row in checks["load"]["data"]["samples"]:
        row["pcie.link.width.current"] = 8


def test_two_certificates_by_name_uuid_and_file(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert read(state, 1793664000) == 0  # 2026-11-03
    assert read(state, 1795478400, slower) == 0
    capsys.readouterr()
    kept = store.history(UUID)
    for path in kept:
        jsonschema.validate(json.loads(path.read_text()), SCHEMA)
    assert main(["certificate", "diff", "lab-01"]) == 0
    said = capsys.readouterr().out
    assert f"bf16 −9 % since {diff.day(1793664000)}; " in said and "PCIe gen 5 ×16 → ×8" in said
    assert "PCIe under load: pass → warn" in said
    assert main(["certificate", "diff", str(kept[1]), str(kept[0])]) == 0
    assert "bf16 +10 %" in capsys.readouterr().out
    assert main(["certificate", "show", UUID[:10], "--json"]) == 0
    jsonschema.validate(json.loads(capsys.readouterr().out), SCHEMA)
    assert main(["certificate", "list"]) == 0
    assert f"{UUID}  lab-01  NVIDIA H100 80GB HBM3  warn" in capsys.readouterr().out


@pytest.mark.parametrize(("wanted", "status", "said"), [
    ("1", 0, ""), ("2", 4, "1 GPU certified, 2 expected · "), ("0", 1, "must be a whole number above 0"),
    ("two", 1, "'two'")])
def test_another_number_of_cards_than_expected_fails_though_each_passes(
        wanted: str, status: int, said: str, state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        assert read(state, 1793664000, lambda checks: None, "--expect-gpus", wanted) == status
    except SystemExit as refused:  # argparse's own way out
        assert refused.code == status == 1
    told = capsys.readouterr().err
    assert said in told and ("expected" in told) == (status == 4)


def test_the_same_twice_is_no_change(state: Path) -> None:
    read(state, 1793664000)
    read(state, 1795478400, lambda checks: checks["matmul"]["data"]["rows"][2].update(tflops=795.0))  # within 3 %
    old, new = (store.open_(str(path)) for path in store.history(UUID))
    assert diff.changes(old, new, load_gates()) == []
    assert diff.headline(old, new, []).startswith("no change since 3 Nov")  # and the year, once it is another


def test_the_page_is_complete_in_itself(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    read(state, 1793664000)
    read(state, 1795478400, slower)
    assert main(["certificate", "html", "lab-01", "-o", str(state / "page.html")]) == 0
    text = (state / "page.html").read_text()
    assert text.count("<svg") == 3 and text.count("<polyline") == 6, "matmul, bandwidth, loss: now and before"
    for drawing in re.findall(r"<svg.*?</svg>", text, re.DOTALL):
        for point in re.findall(r"[\d.]+,[\d.]+", ElementTree.fromstring(drawing).find("polyline").get("points")):
            x, y = map(float, point.split(","))
            assert 0 <= x <= 420 and 0 <= y <= 240, "nothing is drawn outside of its frame"
    assert "bf16 −9 %" in text and "not run" in text
    rows = re.findall(r"<tr>.*?</tr>", text, re.DOTALL)
    worse = [row for row in rows if "worse: " in row]
    assert worse and not [row for row in worse if 'class="status pass"' in row], "a fall is never green"
    assert f"the one before, of {diff.day(1793664000)}" in text and 'class="key before"' in text
    assert "worse than before" in re.search(r"<h1>.*?</h1>", text)[0]  # type: ignore[index]
    assert main(["certificate", "html", str(store.history(UUID)[0]), "-o", str(state / "first.html")]) == 0
    first = (state / "first.html").read_text()
    assert "the one before" not in first and "worse" not in first and "stroke-dasharray" not in first
    assert not re.search(r"https?://|<script|<link|@import|url\(", text)


@pytest.mark.skipif(not CHROMIUM, reason="no Chromium here")
@pytest.mark.parametrize("width", [390, 1200])
def test_the_page_is_no_wider_than_a_phone_or_a_window(width: int, state: Path) -> None:
    read(state, 1793664000)
    read(state, 1795478400, slower)
    assert main(["certificate", "html", "lab-01", "-o", str(state / "page.html")]) == 0
    inside = html.escape((state / "page.html").read_text(), quote=True)
    (state / "frame.html").write_text(
        f'<iframe id="page" width="{width}" height="800" style="border:0" srcdoc="{inside}"></iframe><script>'
        'onload = () => document.title = page.contentDocument.documentElement.scrollWidth</script>')
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={state}/chromium"]
    shown = subprocess.run([str(CHROMIUM), *options, "--virtual-time-budget=3000", "--dump-dom", state / "frame.html"],
                           capture_output=True, text=True, timeout=120, check=False).stdout
    found = re.search(r"<title>(\d+)</title>", shown)
    assert found and int(found[1]) <= width, found


@pytest.mark.parametrize("values", [(math.nan,), (math.inf, -math.inf)])
def test_losses_that_are_no_numbers_fail_and_are_neither_drawn_nor_kept(state: Path, values: tuple[float, ...]) -> None:
    def spoil(checks: dict[str, Any]) -> None:
        training = checks["training"]["data"]
        training.update(finite=False, tokens_per_second=values[0])
        for point, value in zip(training["losses"][4:], values, strict=False):
            point[1] = value

    assert read(state, 1793664000, spoil) == 4
    kept = json.loads(store.history(UUID)[0].read_text(), parse_constant=lambda word: pytest.fail(word))
    jsonschema.validate(kept, SCHEMA)
    training = next(check for check in kept["checks"] if check["name"] == "training")
    assert len(training["series"]["loss by step"]) == 20 - len(values) and "NaN or infinite" in training["why"]
    older = [check | ({"series": {"loss by step": [[1.0, math.nan], [2.0, 3.0], [3.0, 2.0]]}}
                      if check["name"] == "training" else {}) for check in kept["checks"]]
    (state / "older.json").write_text(json.dumps(kept | {"checks": older}))  # as they were kept before
    for card in ("lab-01", str(state / "older.json")):
        assert main(["certificate", "html", card, "-o", str(state / "page.html")]) == 0
        drawings = "".join(re.findall(r"<svg.*?</svg>", (state / "page.html").read_text(), re.DOTALL))
        assert drawings and not re.search(r"\bnan\b|\binf\b", drawings)


def test_a_failed_gate_is_4(state: Path) -> None:
    assert read(state, 1793664000, lambda checks: checks["memory"]["data"].update(wrong_words=1)) == 4


@pytest.mark.parametrize(("arguments", "says"), [
    (["show", "GPU-none"], "there is no certificate of GPU-none"),
    (["diff", "nobody"], "there is no certificate of nobody"),
    (["diff", "lab-01"], "before this one"),
    (["show", "absent.json"], "can't be read"),
    (["show", "broken.json"], "no JSON, or a damaged file"),
    (["show", "other.json"], "not a certificate, or it is damaged"),
    (["show", "later.json"], "format 9"),
    (["show", "began-1e18.json"], "not a certificate, or it is damaged"),
    (["html", "began-Infinity.json"], "not a certificate, or it is damaged"),
    (["html", "point.json"], "not a certificate, or it is damaged"),
    (["read", "measured-Infinity.json"], "measurements are damaged"),
    (["read", "endless.json"], "measurements are damaged"),
    (["read", "measured-1e18.json"], "measurements are damaged"),
    (["read", "broken.json"], "no JSON, or a damaged file"),
    (["read", "other.json"], "no measurements of qwen_rig/host/certify.py"),
    (["read", "other.json", "--stack", "gude"], "there is no stack 'gude'"),
])
def test_bad_input_is_one_line(arguments: list[str], says: str, state: Path, capsys: pytest.CaptureFixture[str],
                               monkeypatch: pytest.MonkeyPatch) -> None:
    read(state, 1793664000)
    (state / "broken.json").write_text('{"kind": "qwen-rig cert')
    (state / "other.json").write_text('{"a": 1}')
    later = json.loads(store.history(UUID)[0].read_text())
    (state / "later.json").write_text(json.dumps({**later, "format": 9}))
    for began in (1e18, math.inf):
        name = f"{json.dumps(began).replace('e+', 'e')}.json"
        (state / f"began-{name}").write_text(json.dumps({**later, "began": began}))
        (state / f"measured-{name}").write_text(json.dumps({**h100(), "began": began}))
    (state / "endless.json").write_text(json.dumps({**h100(), "seconds": math.inf}))
    later["checks"][-1]["series"] = {"loss by step": [[1.0]]}
    (state / "point.json").write_text(json.dumps(later))
    monkeypatch.chdir(state)
    capsys.readouterr()
    assert main(["certificate", *arguments]) == 1
    said = capsys.readouterr().err
    assert says in said and said.count("\n") == 1


def test_what_is_no_text_in_a_certificate_is_shown_as_one(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(state)
    read(state, 1793664000)
    odd = json.loads(store.history(UUID)[0].read_text())
    odd["environment"]["driver"], odd["checks"][0]["facts"] = 580, {"memory": 81559, "PCI id": ["10de", 1]}
    (state / "odd.json").write_text(json.dumps(odd))
    first = str(store.history(UUID)[0])
    for arguments in (["show", "odd.json"], ["html", "odd.json"], ["diff", first, "odd.json"]):
        assert main(["certificate", *arguments]) == 0


def test_certificates_of_two_cards_are_not_compared(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    read(state, 1793664000)
    other = json.loads(store.history(UUID)[0].read_text())
    (state / "b.json").write_text(json.dumps({**other, "uuid": "GPU-other"}))
    assert main(["certificate", "diff", str(store.history(UUID)[0]), str(state / "b.json")]) == 1
    assert "these are two cards" in capsys.readouterr().err


def test_a_damaged_certificate_is_skipped_where_the_last_is_looked_for(state: Path) -> None:
    read(state, 1793664000)
    (store.folder() / UUID / "20990101T000000Z.json").write_text("{")
    found = store.last(UUID, LAB)
    assert found is not None and found.began == 1793664000


def test_the_largest_batch_of_a_hosts_cards_is_the_smallest_of_the_newest(state: Path) -> None:
    assert store.largest_batch(LAB, {UUID: 81559}) is None
    read(state, 1793664000)
    read(state, 1795478400, lambda checks: checks["largest_batch"]["data"].update(batch=20))
    found = store.largest_batch(LAB, dict.fromkeys(["GPU-without-a-certificate", "no/uuid", UUID], 81559))
    assert found is not None and (found.batch, found.uuid, found.date) == (20, UUID, "2026-11-24")
    read(state, 1795564800, lambda checks: checks.update(largest_batch={"status": "not_run", "why": "others use it"}))
    assert store.largest_batch(LAB, {UUID: 81559}) == found, "not_run doesn't hide the one that did"
    emulated = json.loads(store.history(UUID)[-2].read_text()) | {"emulated": True}
    (store.folder() / UUID / "20270101T000000Z.json").write_text(json.dumps(emulated))
    assert store.largest_batch(LAB, {UUID: 81559}) == found


def test_peers_that_fail_are_known_from_the_newest_certificate_with_an_all_reduce(state: Path) -> None:
    assert not store.peers_fail(LAB, [UUID, "no/uuid", "GPU-of-nobody"])
    reduced = {"ranks": 2, "bus_gbs": 15.0, "version": "2.27"}
    broken = {"status": "measured", "data": {**reduced, "without_peers": "no end after 150 s"}}
    read(state, 1793664000, lambda checks: checks.update(all_reduce=broken))
    assert store.peers_fail(LAB, [UUID]) and not store.peers_fail(Identity("another"), [UUID])
    read(state, 1795478400, lambda checks: checks.update(all_reduce={"status": "not_run", "why": "no time"}))
    assert store.peers_fail(LAB, [UUID]), "not_run doesn't hide the one that did"
    read(state, 1795564800, lambda checks: checks.update(all_reduce={"status": "measured", "data": reduced}))
    assert not store.peers_fail(LAB, [UUID]), "mended"
