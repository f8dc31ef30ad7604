"""A certificate as one HTML page that needs nothing else: no script, no font, no address. Plots are inline SVG."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from math import ceil, floor, log10
from time import gmtime, strftime

from qwen_rig.certificate.diff import WORDS, Change, headline
from qwen_rig.certificate.model import Certificate
from qwen_rig.certificate.table import EMULATED, environment, said, summary, title

WIDTH, HEIGHT, LEFT, RIGHT, BOTTOM, TOP = 322, 210, 44, 18, 30, 26
TICKS = 5  # about so many lines across a plot
LOGARITHMIC = ("by size", "by MiB")  # powers of two on the horizontal axis

STYLE = """
:root{color-scheme:light dark;--ink:#1c2430;--dim:#667085;--line:#d5dae1;--paper:#fff;--pass:#1a7f37;--warn:#9a6700;
--fail:#cf222e;--plot:#0b62c4;--before:#9aa4b2}
@media(prefers-color-scheme:dark){:root{--ink:#e6e9ee;--dim:#98a2b3;--line:#3a4250;--paper:#14181f;--pass:#4ac26b;
--warn:#d4a72c;--fail:#ff7b72;--plot:#6cb6ff;--before:#5d6776}}
body{font:15px/1.45 system-ui,sans-serif;color:var(--ink);background:var(--paper);max-width:1000px;margin:2rem auto;
padding:0 1rem}
h1{font-size:1.35rem;margin:0}.dim,th{color:var(--dim)}table{border-collapse:collapse;width:100%;margin:1rem 0}
th{text-align:left;font-weight:normal}td,th{padding:.3rem .7rem .3rem 0;border-bottom:1px solid var(--line);
vertical-align:top}.status{white-space:nowrap;font-weight:600}.pass{color:var(--pass)}.warn,.partial{color:var(--warn)}
.fail{color:var(--fail)}.not_run{color:var(--dim)}.note{border-left:4px solid var(--warn);padding:.3rem .8rem;
color:var(--ink)}.note.fail{border-color:var(--fail)}
.plots{display:flex;flex-wrap:wrap;gap:1rem}figure{margin:0}svg text{font:11px system-ui,sans-serif;fill:var(--dim)}
svg .name{font-size:13px;fill:var(--ink)}
"""


def page(new: Certificate, old: Certificate | None = None, changes: Sequence[Change] = ()) -> str:
    """The page. `old`: the certificate before, whose curves stand behind the new ones, and what has changed since."""
    rows = "\n".join(
        f"<tr><td class='status {c.status}'>{escape(WORDS.get(c.status, c.status))}</td><td>{escape(c.title)}</td>"
        f"<td>{escape(said(c))}</td><td class='dim'>{escape(c.expected)}</td>"
        f"<td class='dim'>{escape(c.source)}</td></tr>"
        for c in new.checks)
    when = strftime("%Y-%m-%d %H:%M UTC", gmtime(new.began))
    notes = []
    if new.emulated:
        notes.append(f"<p class='note'>{EMULATED}</p>")
    notes += [f"<p class='note {c.status}'><b>{escape(WORDS.get(c.status, c.status))}</b> {escape(c.title)}: "
              f"{escape(said(c))}</p>" for c in new.checks if c.status in ("fail", "warn")]
    if old:
        notes.append(f"<p class='note'>{escape(headline(old, new, list(changes)))}</p>")
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{escape(title(new))}</title><style>{STYLE}</style></head><body>
<h1>{escape(new.name)} <span class="{new.overall}">{escape(new.overall)}</span></h1>
<p class="dim">{escape(new.host)} · {escape(new.uuid or 'no UUID')} · {when}, {new.seconds:.0f} s<br>
{escape(environment(new))}</p>
<p>{escape(summary(new))}</p>
{"".join(notes)}
<div class="plots">{"".join(plots(new, old))}</div>
<table><tr><th>result</th><th>check</th><th>measured</th><th>expected</th><th>source</th></tr>
{rows}</table>
<p class="dim">Made by qwen-rig. What was not run is never a pass.</p>
</body></html>
"""


def plots(new: Certificate, old: Certificate | None) -> list[str]:
    """One figure a series."""
    made = []
    for check in new.checks:
        before = old.check(check.name) if old else None
        for name, points in check.series.items():
            if len(points) > 1:
                made.append(plot(f"{check.title}: {name}", points, before.series.get(name) if before else None,
                                 logarithmic=name.endswith(LOGARITHMIC)))
    return made


def scale(most: float) -> list[float]:
    """Round numbers from zero to the first that isn't below `most`, some TICKS of them."""
    rough = max(most, 1e-9) / TICKS
    power = 10.0 ** floor(log10(rough))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough * (1 - 1e-9))
    return [round(step * n, 12) for n in range(ceil(round(most / step, 9)) + 1)] if most > 0 else [0.0, step]


def plot(name: str, points: list[list[float]], before: list[list[float]] | None, logarithmic: bool) -> str:
    """A line through the points, from zero up; the earlier one dashed behind it."""
    everything = points + (before or [])

    def across(x: float) -> float:
        return log10(x) if logarithmic and x > 0 else x

    low, high = (f(across(x) for x, _ in everything) for f in (min, max))
    ticks = scale(max(y for _, y in everything))
    top = ticks[-1]

    def at(x: float, y: float) -> tuple[float, float]:
        share = (across(x) - low) / ((high - low) or 1)
        return LEFT + share * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - max(y, 0) / top * (HEIGHT - BOTTOM - TOP)

    def line(some: list[list[float]], style: str) -> str:
        where = " ".join(f"{x:.1f},{y:.1f}" for x, y in (at(*point) for point in some))
        return f"<polyline points='{where}' fill='none' {style}/>"

    marks = []
    for value in ticks:
        _, y = at(points[0][0], value)
        marks.append(f"<line x1='{LEFT}' x2='{WIDTH - RIGHT}' y1='{y:.1f}' y2='{y:.1f}' stroke='var(--line)'/>"
                     f"<text x='{LEFT - 6}' y='{y + 4:.1f}' text-anchor='end'>{value:g}</text>")
    shown = points if len(points) <= 8 else [points[0], points[len(points) // 2], points[-1]]
    for x, _ in shown:
        marks.append(f"<text x='{at(x, 0)[0]:.1f}' y='{HEIGHT - BOTTOM + 16}' text-anchor='middle'>{x:g}</text>")
    dots = "".join(f"<circle cx='{x:.1f}' cy='{y:.1f}' r='3' fill='var(--plot)'><title>{point[0]:g}: {point[1]:.4g}"
                   "</title></circle>" for point in points for x, y in [at(*point)])
    earlier = line(before, "stroke='var(--before)' stroke-width='1.5' stroke-dasharray='4 3'") if before else ""
    now = line(points, "stroke='var(--plot)' stroke-width='2'")
    return (f"<figure><svg viewBox='0 0 {WIDTH} {HEIGHT}' width='{WIDTH}' role='img' aria-label='{escape(name)}'>"
            f"<text class='name' x='{LEFT}' y='14'>{escape(name)}</text>{''.join(marks)}{earlier}"
            f"{now}{dots}</svg></figure>")
