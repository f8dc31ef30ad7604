"""One report of the run: report.json with every figure, and a page for people."""

from __future__ import annotations

import html
import json
import time
from pathlib import Path
from typing import Any

REAL = ("real: the card, its driver and torch; SSH; the product, its plan, steps, jobs, proof and certificates. "
        "A stand-in: conda (makes an env of the machine's own Python). The packages are the machine's own, repacked as "
        "wheels and served on loopback.")
PAGE = """<!DOCTYPE html><html lang="en"><meta charset="utf-8"><title>qwen-rig on a real card</title>
<style>body{{font:15px/1.5 system-ui;max-width:60rem;margin:2rem auto;padding:0 1rem}}table{{border-collapse:collapse;
width:100%}}td,th{{text-align:left;padding:.3rem .6rem;border-bottom:1px solid #8884;vertical-align:top}}
pre{{white-space:pre-wrap;font-size:12px;background:#8881;padding:.6rem}}</style>
<h1>The main job on {card}</h1><p>{when} · commit {commit}</p><p>{real}</p>
<table><tr><th>part</th><th>state</th><th>seconds</th><th></th></tr>{rows}</table>
<h2>What the card measured</h2><table><tr><th>check</th><th>state</th><th>measured</th></tr>{checks}</table>
<h2>The commands</h2>{commands}</html>"""


def write(work: Path, commit: str, order: list[str]) -> dict[str, Any]:
    """Write report.json and report.html of all parts that have run; the report."""
    parts = [json.loads(path.read_text()) for name in order if (path := work / "parts" / f"{name}.json").exists()]
    made = {"commit": commit, "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()), "real": REAL, "parts": parts}
    (work / "report.json").write_text(json.dumps(made, indent=1))
    (work / "report.html").write_text(_page(made), encoding="utf-8")
    return made


def _page(made: dict[str, Any]) -> str:
    text = html.escape
    measured = [each for part in made["parts"] for each in part["figures"].get("certificates", [])][-1:]
    checks = [row for each in measured for row in each.get("checks", [])]
    return PAGE.format(
        card=text(str(measured[0].get("name", "a card")) if measured else "a card"), when=made["date"],
        commit=text(made["commit"]), real=text(made["real"]),
        rows="".join(f"<tr><td>{part['name']}<td>{part['state']}<td>{part['seconds']:.0f}<td>{text(part['why'])}"
                     for part in made["parts"]),
        checks="".join(f"<tr><td>{text(str(row.get('title', row.get('name'))))}<td>{text(str(row.get('status')))}"
                       f"<td>{text(str(row.get('measured', '')))}" for row in checks),
        commands="".join(f"<h3>{text(' '.join(one['argv']))}</h3><p>exit {one['code']}, {one['seconds']} s</p>"
                         f"<pre>{text(one['said'])}</pre>" for part in made["parts"] for one in part["commands"]))
