"""What attention.py makes of a proof: right and faster than SDPA for each head dimension, or SDPA with both figures.
The plan knows for whose head dimensions it was decided."""

from __future__ import annotations

import importlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from qwen_rig.catalog.sources import load_sources
from qwen_rig.deploy.flash_attn import answers
from qwen_rig.deploy.flash_attn.apply import in_vain
from qwen_rig.deploy.flash_attn.plan import decision, explain, flash_spec, step
from qwen_rig.facts.records import AttentionRecord
from qwen_rig.plan import Action, Context
from tests.plan.states import context
from tests.plan.test_plan import converged
from tests.plan.test_stored_form import SMI

HOST = Path(__file__).parents[2] / "qwen_rig" / "host"
DIMS = [64, 128]


def rows(*times: tuple[float, float]) -> list[dict[str, float]]:
    return [{"head_dim": dim, "ms": ms, "sdpa_ms": sdpa} for dim, (ms, sdpa) in zip(DIMS, times, strict=True)]


@pytest.fixture
def decided(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """attention.py's own way down one rung; the wheel is installed already, and its check says what it is told to."""
    monkeypatch.syspath_prepend(str(HOST))
    program, removed = importlib.import_module("attention"), list[str]()
    monkeypatch.setattr(program, "HERE", tmp_path)
    monkeypatch.setattr(program, "install", lambda wheel, spec, seconds: (None, []))
    monkeypatch.setattr(program, "remove", lambda spec, before: removed.append(spec["package"]))

    def run(says: str, code: int = 0) -> tuple[dict[str, Any], list[str]]:
        (tmp_path / "check.py").write_text(f"import sys\nopen({str(tmp_path / 'asked')!r}, 'w').write(' '.join("
                                           f"sys.argv[1:]))\nprint({says!r})\nsys.exit({code})\n")
        made = program.decide({
            "package": "json", "check": "check.py", "gpu": True, "tried": [], "rejected": [], "companions": [],
            "wheels": [{"name": "a.whl", "url": "file:///a.whl", "sha256": "0" * 64, "bytes": 1, "rung": "wheel"}],
            "last": True, "build": None, "fingerprint": "f", "minutes": 0, "head_dims": DIMS, "faster_pct": 2,
            "seconds": {"install": 9, "import": 99, "check": 99}})
        assert (tmp_path / "asked").read_text() == "--head-dims 64 128"
        return json.loads(json.dumps(made)), removed

    return run


def test_a_faster_one_is_kept_and_both_figures_are_on_record(decided: Any) -> None:
    made, removed = decided(json.dumps({"status": "pass", "worst": 0.003, "speed": rows((1.0, 1.2), (2.0, 2.05))}))
    assert (made["attention"], made["rung"], removed) == ("flash_attention_2", "wheel", [])
    assert made["why"] == ("a.whl works, faster than SDPA here: head_dim 64: 1.00 ms, SDPA 1.20 ms; "
                           "head_dim 128: 2.00 ms, SDPA 2.05 ms")
    assert made["head_dims"] == DIMS and made["speed"] in made["why"]
    said = answers.proven([json.dumps(made)])
    assert said and said["speed"] == made["speed"]


@pytest.mark.parametrize("slow", [(2.0, 2.0), (2.1, 2.0), (1.99, 2.0), (float("nan"), 2.0), (2.0, float("nan")),
                                  (float("inf"), 2.0)])
def test_one_that_isnt_faster_for_each_head_dim_gives_way_to_sdpa(decided: Any, slow: tuple[float, float]) -> None:
    made, removed = decided(json.dumps({"status": "pass", "worst": 0.003, "speed": rows((1.0, 1.2), slow)}))
    assert (made["attention"], made["rung"], made["version"]) == ("sdpa", "sdpa", None) and "json" in removed
    assert made["why"] == (f"wheel: right, but no faster than SDPA on this card: head_dim 128: {slow[0]:.2f} ms, "
                           f"SDPA {slow[1]:.2f} ms")
    assert "head_dim 64: 1.00 ms, SDPA 1.20 ms" in made["tried"][0]["last"][0], "and what was faster is told too"


@pytest.mark.parametrize(("built", "row", "vain"), [
    (("build", "2.8.3.post2", ("90",)), {}, True), (("build", "2.8.3", ("90", "120")), {}, False),
    (("build", "2.8.4", ("90",)), {}, False), (("git", "git", ("90",)), {}, False),
    (("build", "2.8.3", ("90",)), {"why_not": None}, False),
    (("build", "2.8.3", ("90",)), {"version": ""}, False),
    (("build", "2.8.3", ("90",)), {"version": "2.8.3 or so"}, False),
    (("build", "2.8.3", ("90",)), {"archs": []}, False)])
def test_what_was_right_and_slow_is_not_built_once_more(built: tuple[str, str, tuple[str, ...]], row: dict[str, Any],
                                                        vain: bool) -> None:
    state = converged("guide")
    state["gpus"] = SMI[:1]
    spec, = flash_spec(context(state, "guide")).builds
    rung, version, archs = built
    spec = replace(spec, rung=rung, key=replace(spec.key, version=version, archs=archs))
    said = {"rung": "wheel", "version": "2.8.3+cu12torch2.8", "archs": ["sm_80", "sm_90"], "why_not": "slow",
            "proof": {}, **row}
    assert bool(in_vain(spec, [said])) is vain
    del said["proof"]  # it was wrong, or couldn't be imported
    assert not in_vain(spec, [said])


def test_a_wrong_one_is_not_timed(decided: Any) -> None:
    made, _ = decided(json.dumps({"status": "fail", "why": "head_dim 128, causal: differs by nan"}), 1)
    assert made["rung"] == "sdpa" and "its kernels aren't proven: head_dim 128, causal: differs by nan" in made["why"]


def kept(head_dims: list[int] | None, tried: bool = True, model: str | None = None) -> Context:
    """A host with the guide's env and a record of flash-attn, decided for these head dimensions."""
    state = converged("guide")
    state["gpus"] = SMI[:1]
    why = "right, but no faster than SDPA on this card: head_dim 64: 2.00 ms, SDPA 1.90 ms"
    row = {"rung": "wheel", "why_not": why}
    record = state["generations"][0]["records"]["flash_attn"]
    record |= {"attention": "sdpa", "rung": "sdpa", "why": f"wheel: {row['why_not']}", "tried": [row] if tried else []}
    if head_dims is not None:
        record["head_dims"] = head_dims
    record["fingerprint"] = flash_spec(context(state, "guide")).fingerprint
    return context(state, "guide", model=model)


@pytest.mark.parametrize(("head_dims", "tried", "model", "why"), [
    (None, True, None, None), (None, True, "Qwen/Qwen2.5-7B", None), (DIMS, True, None, None),
    ([128], True, "Qwen/Qwen2.5-7B", None), (DIMS, False, "Qwen/Qwen2.5-7B", None),
    (DIMS, True, "Qwen/Qwen2.5-7B", "decided for head_dim 64, 128, and Qwen/Qwen2.5-7B has 128: tried again"),
    ([128], True, "Qwen/Qwen2.5-0.5B", "decided for head_dim 128, and Qwen/Qwen2.5-0.5B has 64: tried again"),
    ([128], True, None, "decided for head_dim 128, and stack guide has 64, 128: tried again")])
def test_it_is_decided_again_for_another_models_head_dim_where_something_was_tried(
        head_dims: list[int] | None, tried: bool, model: str | None, why: str | None) -> None:
    found = step(kept(head_dims, tried, model), [])
    assert found.action is (Action.CHANGE if why else Action.NONE)
    assert why is None or found.why == why


def test_plan_and_explain_say_what_it_is_kept_for_and_what_it_took() -> None:
    state = converged("guide")
    state["generations"][0]["records"]["flash_attn"] = None
    assert "kept only if correct and faster than SDPA on this card, for head_dim 64" in step(context(state), []).why
    ctx = kept(DIMS)
    assert "head_dim 64: 2.00 ms, SDPA 1.90 ms" in step(ctx, []).why
    facts, rules = explain(ctx)
    assert ("proven for head_dim", "64, 128") in {(fact.name, str(fact.value)) for fact in facts}
    assert any("faster than SDPA by 2 % for each head_dim, else SDPA" in rule.text for rule in rules)


def test_a_third_partys_wheel_is_closed_until_its_sha256_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    state, name = converged("guide"), "flash_attn-2.8.3+cu128torch2.8-cp310-cp310-manylinux_2_24_x86_64." \
                                      "manylinux_2_28_x86_64.whl"
    state["gpus"] = SMI[:1]
    assert not [wheel for wheel in flash_spec(context(state)).wheels if wheel.name == name]
    assert any(rule.text.startswith(f"closed: {name}: nobody vouches") for rule in explain(context(state))[1])
    asked = flash_spec(context(state, flash_attn_unverified=True)).wheels[-1]
    assert (asked.name, asked.sha256) == (name, None)
    row = load_sources().flash_attn.others["mjun0812"]
    monkeypatch.setitem(row.pinned, name, "1" * 64)
    opened = flash_spec(context(state)).wheels[-1]
    assert (opened.name, opened.sha256) == (name, "1" * 64)
    assert not any(rule.text.startswith("closed: ") for rule in explain(context(state))[1])


def test_what_release_0_2_0_wrote_gives_the_same_training_json() -> None:
    assert "speed" not in decision(AttentionRecord(attention="sdpa", rung="sdpa"))
    assert decision(AttentionRecord(attention="flash_attention_2", rung="wheel", speed="x"))["speed"] == "x"
