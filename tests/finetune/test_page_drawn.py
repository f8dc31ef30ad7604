"""The page as Chromium draws it, at a phone's width and a desk's, light and dark; skipped where there is no Chromium.
QWEN_RIG_PICTURES=FOLDER keeps the picture of all four."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from qwen_rig.finetune import page, record
from qwen_rig.finetune.record import Record
from tests import HANG_S

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
LONG = "a-model-whose-name-does-not-end-" * 6
# A frame has the width and the scheme of its own: a headless window is never narrower than 500.
FRAME = ('<iframe id="{id}" srcdoc="{page}" style="width:{width}px;height:1500px;border:0;color-scheme:{scheme}">'
         '</iframe>')
LOOK = """<script>addEventListener("load", () => { const found = {};
for (const frame of document.querySelectorAll("iframe")) { const d = frame.contentDocument, w = frame.contentWindow;
  const text = [...d.querySelectorAll("h1, h2, h3, p, td, th, li")].filter(e => e.getClientRects().length);
  found[frame.id] = {wide: d.documentElement.scrollWidth, ground: w.getComputedStyle(d.body).backgroundColor,
    ink: w.getComputedStyle(d.body).color,
    small: Math.min(...text.map(e => parseFloat(w.getComputedStyle(e).fontSize))),
    line: [...d.querySelectorAll("polyline")].map(e => Math.round(e.getBoundingClientRect().width)),
    text: d.body.innerText}; }
document.title = "done"; const pre = document.createElement("pre"); pre.id = "found";
pre.textContent = JSON.stringify(found); document.body.append(pre); });</script>"""


def light(colour: str) -> float:
    """How light `rgb(…)` is, 0 to 1."""
    return sum(int(part) for part in re.findall(r"\d+", colour)[:3]) / 765


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
def test_it_fits_a_phone_and_a_desk_light_and_dark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    points = tuple({"step": n, "of": 400, "loss": 0.4 + 3 / n, "tokens_s": 5120, "left_s": 900, "memory_mib": 11000,
                    "memory_of": 24000} for n in range(1, 301))
    made = record.keep(Record("chats", record.new_id(), "box-1", "lab.yml", "/r", "2026-11-29T13:00:00+00:00",
                              state="running", model="Qwen/Qwen3-8B", data={"name": "chats.jsonl"}, points=points))
    record.keep(replace(made, name="a-name-of-forty-letters-the-longest-one0", model=LONG, host=LONG,
                        data={"name": f"/data/{LONG}.jsonl"}, state="finished"))
    frames = {f"{width}-{scheme}": (width, scheme) for width in (390, 1200) for scheme in ("light", "dark")}
    shown = html.escape(page.page(), quote=True)
    drawn = (FRAME.format(id=name, page=shown, width=width, scheme=scheme) for name, (width, scheme) in frames.items())
    (tmp_path / "all.html").write_text(f"<!doctype html><body>{''.join(drawn)}{LOOK}")
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--window-size=2600,3100",
               f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=2000"]
    address = (tmp_path / "all.html").as_uri()
    done = subprocess.run([*command, "--dump-dom", address], capture_output=True, text=True, timeout=HANG_S)
    match = re.search(r'<pre id="found">(.*?)</pre>', done.stdout, re.DOTALL)
    assert match, done.stderr[-2000:]
    found = json.loads(html.unescape(match[1]))
    if folder := os.environ.get("QWEN_RIG_PICTURES"):
        subprocess.run([*command, f"--screenshot={Path(folder).absolute() / 'watch.png'}", address], check=True,
                       capture_output=True, timeout=HANG_S)
    for name, (width, scheme) in frames.items():
        seen = found[name]
        assert seen["wide"] <= width, f"{name}: {seen['wide']} wide: it scrolls sideways"
        assert (light(seen["ground"]) > 0.5) == (scheme == "light"), f"{name}: {seen['ground']}"
        assert abs(light(seen["ground"]) - light(seen["ink"])) > 0.5 and seen["small"] >= 11, f"{name}: {seen}"
        assert min(seen["line"]) > 200, f"{name}: a curve of {seen['line']}"
        for word in ("chats", "step 300 of 400", "loss 0.410", "5,120 tokens/s", "box-1"):
            assert word in seen["text"], f"{name}: no {word}"
