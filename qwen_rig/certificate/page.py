"""A certificate as one HTML page that needs nothing else: no script, no font, no address. Plots are inline SVG."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from time import gmtime, strftime

from jinja2 import Environment, StrictUndefined, Template

from qwen_rig.certificate.diff import WORDS, Change, day, headline
from qwen_rig.certificate.model import Certificate, Check
from qwen_rig.certificate.plot import Plot, plot
from qwen_rig.certificate.table import EMULATED, environment, said, summary, title

LOGARITHMIC = ("by size", "by MiB")  # powers of two on the horizontal axis


def page(new: Certificate, old: Certificate | None = None, changes: Sequence[Change] = ()) -> str:
    """The page. `old`: the certificate before, whose curves are dashed behind the new ones, and what has changed since.

    What is worse than before is never green, though its gate holds.
    """
    drawn = plots(new, old)
    fallen: dict[str, list[str]] = defaultdict(list)
    for change in changes:
        if change.worse:
            fallen[change.check].append(change.text)
    return _template().render(
        certificate=new, title=title(new), when=strftime("%Y-%m-%d %H:%M UTC", gmtime(new.began)),
        environment=environment(new), summary=summary(new), emulated=EMULATED if new.emulated else "",
        headline=headline(old, new, list(changes)) if old else "", plots=drawn, word=_word, said=said,
        fallen=fallen, risen=any(change.worse is False for change in changes), shade=_shade,
        dashed=day(old.began) if old and any(each.before for each in drawn) else "")


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


def _shade(status: str, fallen: object) -> str:
    """The class that colours a status: of a pass that is worse than before, a warning's."""
    return "warn" if fallen and status == "pass" else status


@cache
def _template() -> Template:
    text = (files("qwen_rig.certificate") / "page.html.j2").read_text(encoding="utf-8")
    return Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
                       keep_trailing_newline=True).from_string(text)
