"""What is on record here of runs, hosts and cards: as plain data, and as one page without scripts."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from time import gmtime, strftime
from typing import Any

from jinja2 import Environment, StrictUndefined, Template

from qwen_rig import hosttext, ledger, strictjson
from qwen_rig.certificate import store
from qwen_rig.certificate.plot import Plot, plot
from qwen_rig.finetune import record, words
from qwen_rig.finetune.record import Record

PLOTTED = 120  # points of a curve that is drawn


def found() -> dict[str, Any]:
    """Runs, hosts and cards, as --json has them (docs/training.schema.json)."""
    runs = [{**words.shown(each), "points": [dict(row) for row in each.points]} for each in record.every()]
    return {"form": words.FORM, "runs": runs, "hosts": hosts(), "cards": cards()}


def hosts() -> list[dict[str, str]]:
    """The hosts that were applied from here, by the ledger."""
    rows = []
    for file in sorted((ledger.folder() / "hosts").glob("*.json")):
        try:
            made = strictjson.mapping(file.read_text(encoding="utf-8"), ledger.LARGEST) or {}
        except (OSError, UnicodeDecodeError):
            continue
        state, when = _mapping(made.get("snapshot")), made.get("when")
        if isinstance(made.get("host"), str) and isinstance(when, str):
            gpus = state.get("gpus")
            rows.append({"name": made["host"], "when": when, "stack": str(state.get("stack") or "-"),
                         "driver": str(_mapping(state.get("driver")).get("loaded_version") or "-"),
                         "gpus": str(len(gpus) if isinstance(gpus, list) else 0)})
    return rows


def cards() -> list[dict[str, str]]:
    """The cards that have certificates, each in each host, the newest one's verdict."""
    return [{"uuid": uuid, "name": made.name, "host": made.host, "overall": made.overall,
             "when": strftime("%Y-%m-%d %H:%M UTC", gmtime(made.began))}
            for uuid in store.cards() for made in store.hosts(uuid).values()]


def page(refresh: int = 0) -> str:
    """The page; `refresh`: seconds after which a browser asks again, 0: never."""
    return _template().render(runs=[_run(each) for each in record.every()], hosts=hosttext.value(hosts()),
                              cards=hosttext.value(cards()), refresh=refresh,
                              when=strftime("%Y-%m-%d %H:%M:%S UTC", gmtime()))


def _run(each: Record) -> dict[str, Any]:
    last = each.last
    row = {"name": each.name, "host": ", ".join(each.hosts), "state": each.state, "model": each.model,
           "began": each.began, "data": str(each.data.get("name", "-")), "seen": each.seen,
           "far": words.line(last)}
    return {**hosttext.value(row), "step": last.get("step", 0), "of": last.get("of", 0), "plot": curve(each)}


def curve(each: Record) -> Plot | None:
    """The run's loss by step; None of fewer than two points."""
    points = [(float(row["step"]), float(row["loss"])) for row in each.points if "loss" in row]
    if len(points) < 2 or max(loss for _, loss in points) <= 0:
        return None
    stride = -(-len(points) // PLOTTED)
    return plot("loss by step", [*points[:-1:stride], points[-1]], None, False)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


@cache
def _template() -> Template:
    text = (files("qwen_rig.finetune") / "page.html.j2").read_text(encoding="utf-8")
    return Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
                       keep_trailing_newline=True).from_string(text)
