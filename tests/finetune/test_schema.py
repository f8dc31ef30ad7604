"""Whatever a host tells of its runs, what the verbs print with --json stays as docs/training.schema.json has it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qwen_rig.finetune import record, told, words
from qwen_rig.finetune.record import Record
from qwen_rig.host import train_qwen

from .schema import DEFINITIONS, held

ENV = {"path": "/e", "stack": "qwen3", "lock_sha256": None, "launch": "one", "busy": ""}
DATA = {"name": "a/b", "sha256": None, "bytes": 0, "samples": None, "there": "a/b"}
ODD = st.none() | st.booleans() | st.integers(-10 ** 20, 10 ** 20) | st.floats() | st.text(max_size=8)
ANY = st.recursive(ODD, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
    st.text(max_size=6), inner, max_size=3), max_leaves=6)
ROW = st.fixed_dictionaries({"bytes": ODD | st.integers(0, 9), "sha256": ODD | st.just("0" * 64)})
FILES = ANY | st.dictionaries(st.sampled_from(["adapter_model.safetensors", "../x", "x.pkl"]), ROW | ANY, max_size=3)


def some(names: Any, value: Any) -> Any:
    """A mapping of some of these names, or no mapping."""
    return st.dictionaries(st.sampled_from(sorted(names)), value, max_size=6) | ANY


LIE = st.fixed_dictionaries({"name": st.just("a")}, optional={
    "job": some(["state", "run"], st.sampled_from(["running", "none", "done", "aborted", "x"]) | ANY),
    "asked": some(["id"], ANY), "settings": some(train_qwen.DEFAULTS, ANY),
    "begun": some(["revision", "of"], ANY | st.just("0123456789ab")),
    "end": some(["state", "code", "step", "of", "at", "loss", "files"],
                st.sampled_from(["finished", "stopped", "failed"]) | FILES | ANY),
    "checkpoint": some(["step", "folder", "files"], st.sampled_from([5, "checkpoint-5"]) | FILES),
    "points": st.lists(some(["step", "loss", "of", "tokens_s", "memory_mib"], ANY), max_size=4) | ANY})


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(lie=LIE)
def test_a_record_of_whatever_a_host_tells_is_as_the_schema_has_it(
        lie: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> None:
    from qwen_rig.run import finetune

    patched = pytest.MonkeyPatch()
    patched.setenv("XDG_STATE_HOME", str(tmp_path_factory.getbasetemp() / "lies"))
    try:
        kept = Record("a", record.new_id(), "h", "lab.yml", "/r", "2026-11-29T13:00:00+00:00", env=ENV, data=DATA,
                      settings=dict(train_qwen.DEFAULTS))
        for found in told.runs(json.dumps({"runs": [lie]})):
            kept = finetune.take_in(kept, found)
        held(words.shown(kept), "run")
        held(words.shown(record.load("a") if record.path("a").exists() else kept), "run")
        held([{**words.shown(kept), "points": list(map(dict, kept.points))}], "runs")
    finally:
        patched.undo()


@settings(max_examples=100, deadline=None)
@given(found=some(["loss", "loss_base", "step", "samples", "split", "answers"], ANY | st.just(1.5)))
def test_an_evaluation_is_as_the_schema_has_it(found: Any) -> None:
    from qwen_rig.run.fetching import evaluation

    if made := evaluation(found if isinstance(found, dict) else {}):
        held({"form": words.FORM, "run": "a", **made}, "eval")


def test_each_verb_has_its_document() -> None:
    named = {"train", "runs", "run", "logs", "fetch", "eval", "watch", "remove"}
    assert named <= set(DEFINITIONS)
    for verb in named:
        with pytest.raises(Exception, match=r"is not|is a required"):
            held(3 if verb not in ("train", "runs", "remove") else [{}], verb)
    assert Path(__file__).parents[2].joinpath("docs", "training.md").read_text().count("training.schema.json") >= 1
