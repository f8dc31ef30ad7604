"""A certificate as one HTML page that needs nothing else: no script, no font, no address. Plots are inline SVG."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from time import gmtime, strftime

from jinja2 import Environment, StrictUndefined, Template

from qwen_rig.certificate.diff import WORDS, Change, headline
from qwen_rig.certificate.model import Certificate, Check
from qwen_rig.certificate.plot import Plot, plot
from qwen_rig.certificate.table import EMULATED, environment, said, summary, title

LOGARITHMIC = ("by size", "by MiB")  # powers of two on the horizontal axis


def page(new: Certificate, old: Certificate | None = None, changes: Sequence[Change] = ()) -> str:
    """The page. `old`: the certificate before, whose curves stand behind the new ones, and what has changed since."""
    return _template().render(
        certificate=new, title=title(new), when=strftime("%Y-%m-%d %H:%M UTC", gmtime(new.began)),
        environment=environment(new), summary=summary(new), emulated=EMULATED if new.emulated else "",
        headline=headline(old, new, list(changes)) if old else "", plots=plots(new, old), word=_word, said=said)


def plots(new: Certificate, old: Certificate | None) -> list[Plot]:
    """One drawing a series."""
    made = []
    for check in new.checks:
        before = old.check(check.name) if old else None
        for name, points in check.series.items():
            if len(points) > 1:
                made.append(plot(f"{check.title}: {name}", points, before.series.get(name) if before else None,
                                 logarithmic=name.endswith(LOGARITHMIC)))
    return made


def _word(check: Check) -> str:
    return WORDS.get(check.status, check.status)


@cache
def _template() -> Template:
    text = (files("qwen_rig.certificate") / "page.html.j2").read_text(encoding="utf-8")
    return Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
                       keep_trailing_newline=True).from_string(text)
