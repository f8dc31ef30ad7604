"""What a host may say, mutated thousandfold with a fixed seed: through the real readers and planner, and everything
that a verb makes of a plan, nothing raises but RigError (which is that host's card)."""

from __future__ import annotations

import copy
import io
import json
import random
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from qwen_rig import doctor, ledger, render, strictjson
from qwen_rig import launch as launches
from qwen_rig.catalog.rules import load_rules
from qwen_rig.certificate import judge, page, store, table
from qwen_rig.certificate.gates import load_gates
from qwen_rig.cli.doctor import unknowns
from qwen_rig.deploy import ORDER
from qwen_rig.deploy.flash_attn import answers
from qwen_rig.deploy.planning import explain, make_plan
from qwen_rig.domain import Identity
from qwen_rig.errors import RigError
from qwen_rig.facts import _conda
from qwen_rig.facts.launch import LaunchState
from qwen_rig.facts.probe import HostState
from qwen_rig.facts.state import State
from qwen_rig.plan import Context
from qwen_rig.plan.compare import traits
from qwen_rig.plan.document import of_plan
from qwen_rig.plan.drift import drift, fingerprint, snapshot
from qwen_rig.plan.env import env_record, records
from qwen_rig.plan.model import Applied
from qwen_rig.run import job_protocol as jobs
from tests.certificate.synthesized import h100
from tests.facts.test_state import WHOLE, changed, places
from tests.plan.states import RTX5090, bare, context

REPO = Path(__file__).parents[2]
DEEP = "[" * 200_000
ODD: tuple[Any, ...] = (None, True, 0, -1, 1e308, 2 ** 63 - 1, "", "x" * 2000, "²", "../../x", "[/b]", [], {}, [[]],
                        {"a": 1}, ["x"], [{}], [None])
HOSTILE = (DEEP, '{"a":' * 100_000, "9" * 5000, '{"stack": 1e999, "previous": NaN}', "-Infinity", '{"a": 1, "a": 2}',
           r'{"stack": "\ud800"}', r'{"\udfff": 1}', '"' + "x" * 1_000_000 + '"', "", "\0", "{", "null", "[]", "7",
           '{"attention": {"attention": {}}}', '{"minutes": 99999999999999999999999999}')
JUNK = ("[N/A]", "[Unknown Error]", "-1", "9" * 5000, "1e999", "0x", "[/b]", "é²", "nan", "{}", "[]", "null", "v.v.v",
        "1.2.3.4.5.6", "/", "..", "", "\t", "²", "True", "1;2", "GPU-", "a=b=c", "\ufffd" * 3, DEEP[:5000])
KNOWN = context(bare(RTX5090), "standin")


def of(state: State) -> Context:
    return Context("lab-01", state, KNOWN.stack, KNOWN.knobs, KNOWN.rules)


def all_of_it(state: State, shown: bool = True) -> None:
    """Everything that a verb makes of a host's state; `shown`: on a screen, too, which takes ten times as long."""
    with suppress(RigError):
        ctx = of(state)
        plan = make_plan(ctx)
        snap = snapshot(ctx)
        assert fingerprint(ctx) and traits(ctx) is not None and env_record(ctx) is not None
        json.dumps(of_plan(plan, snap), ensure_ascii=False).encode()
        if not shown:
            return
        screen = Console(file=io.StringIO(), width=100)
        screen.print(render.plan_table([plan], True))
        screen.print(render.changed(plan))
        for step in ORDER:
            if any(each.component == step for each in plan.steps):
                screen.print(render.explanation(explain(ctx, plan, step)))
        for step in plan.steps:
            if step.payload:
                step.payload.next_commands("ssh lab-01", "lab-01")
        verified = records(ctx).verification
        failed = [check.why or "" for check in verified.failed] if verified else []
        doctor.findings(failed, doctor.signs(ctx.state), doctor.words(ctx.state))
        unknowns(ctx.state)


def test_a_value_of_any_type_at_any_place_of_a_state() -> None:
    """Every record's every key among them."""
    tried = 0
    for at in places(WHOLE):
        for odd in random.Random(str(at)).sample(ODD, 4 if at[:1] == ("generations",) else 1):
            tried += 1
            all_of_it(State.of(changed(WHOLE, at, odd)), shown=tried % 40 == 0)
    assert tried > 300


def test_a_probe_with_any_word_of_it_altered() -> None:
    rng = random.Random(5)
    for case in (REPO / "tests/facts/cases/probe.HostState").glob("*.yaml"):
        said = yaml.safe_load(case.read_text())["output"]
        text = said if isinstance(said, str) else "\n".join(said)
        all_of_it(State.of(HostState().process(text.splitlines())))
        for number in range(60):
            all_of_it(State.of(HostState().process(mutated(text, rng).splitlines())), shown=number % 20 == 0)


def mutated(text: str, rng: random.Random) -> str:
    lines = text.split("\n")
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(lines))
        words = re.split(r"([\s,=|:\"]+)", lines[at])
        words[rng.randrange(len(words))] = rng.choice(JUNK)
        lines[at] = "".join(words)
        if rng.random() < .1:
            del lines[rng.randrange(len(lines))]
    return "\n".join(lines)


@pytest.mark.parametrize("record", _conda.RECORDS)
@pytest.mark.parametrize("text", HOSTILE, ids=[text[:12] for text in HOSTILE])
def test_a_record_that_is_a_json_bomb_is_absent_and_that_is_said(record: str, text: str) -> None:
    """Beside a whole one, which is read."""
    other = next(name for name in _conda.RECORDS if name != record)
    found, problem = _conda.read_generations(
        f"##generation /c/envs/.qwen-train-0a1b2c3d4e5f-1\n##record {record}\n{text}\n##record {other}\n{{}}\n")
    raw = copy.deepcopy(WHOLE)
    raw["generations"][0]["records"][record] = found[0]["records"][record]
    state = State.of(raw)
    said = problem or any(f"{record}.json" in part for part in state.problems)
    assert found[0]["records"][other] == {}
    assert said or text in ("null", "[]", "-Infinity") or getattr(state.generations[0].records, record) is not None
    all_of_it(state, shown=False)


@pytest.mark.parametrize("text", HOSTILE, ids=[text[:12] for text in HOSTILE])
def test_strict_json_gives_what_can_be_written_again_or_says_why_not(text: str) -> None:
    value, why = strictjson.parse(text)
    assert (value is None) or why is None
    copy.deepcopy(value)
    json.dumps(value, allow_nan=False, ensure_ascii=False).encode()


def mutations(whole: Any, seed: int, count: int) -> Iterator[Any]:
    rng = random.Random(seed)
    every = [at for at in places(whole) if at]
    for _ in range(count):
        yield changed(whole, rng.choice(every), rng.choice(ODD))


ATTENTION = {"attention": "flash_attention_2", "rung": "wheel", "version": "2.8.3", "sha256": "a" * 64,
             "archs": ["sm_120"], "proof": {"worst": 0.1, "tolerance": 0.2}, "why": "it works", "minutes": 1.5,
             "built": {"host": "a", "jobs": 4},
             "tried": [{"rung": "wheel", "wheel": "x.whl", "why_not": "no", "last": ["a"], "sha256": "b" * 64}]}
BUILD = {"ok": True, "wheel": "/x/y.whl", "sha256": "a" * 64, "source": "git+x", "minutes": 3.0, "archs": ["sm_120"]}


@pytest.mark.parametrize(("read", "whole"), [(answers.proven, ATTENTION), (answers.built, BUILD)])
def test_what_the_attempt_at_flash_attn_says_has_its_types(read: Callable[[list[str]], Any], whole: Any) -> None:
    assert read([json.dumps(whole)]) is not None and read([]) is None
    for odd in [*mutations(whole, 1, 400), *map(json.loads, ("7", "[]", "null"))]:
        found = read(["said before", json.dumps(odd)])
        if found is None:
            continue
        assert isinstance(found["minutes"], (int, float)) and f"{found['minutes']:.0f}"
        assert found["sha256"] is None or re.fullmatch("[0-9a-f]{64}", found["sha256"])
        if read is answers.built:
            assert not found["ok"] or (Path(found["wheel"]).name and found["sha256"])
        else:
            assert all(isinstance(row["rung"], str) and isinstance(row["last"], list) for row in found["tried"])
            assert all(row["why_not"] is None or isinstance(row["why_not"], str) for row in found["tried"])
    for text in HOSTILE:
        assert read([text]) is None


def test_a_job_s_answer_of_any_words() -> None:
    rng, words = random.Random(2), ("-1", "9" * 5000, "²", "x", "", "1e9", "None", "0x1", "\u0661", "a=b")
    whole = "@job state=running run=abc key=k started=0 now=61 to=1 code= limit=9 log=/l why=\n@progress 1 2 x\nnews"
    assert jobs.read(whole) is not None
    progress = jobs.Progress()
    for _ in range(2000):
        said = re.sub(r"(?<==)\S*", lambda found: rng.choice(words) if rng.random() < .3 else found[0], whole)
        said = re.sub(r"(?<=progress )\d", lambda _: rng.choice(words), said) if rng.random() < .3 else said
        answer = jobs.read(said)
        assert answer is not None and answer.state in jobs.STATES and answer.elapsed >= 0
        progress.feed(answer)
        jobs.plain(answer.lines)


def test_the_log_that_is_kept_is_its_end() -> None:
    lines = [f"line {n}" for n in range(1000)]
    assert jobs.last(lines, 100)[-1] == "line 999" and sum(map(len, jobs.last(lines, 100))) <= 100
    assert jobs.last(lines, 10_000_000) == lines and jobs.last([], 5) == []
    assert jobs.last(["x" * 1000], 10) == ["x" * 10]


ROWS = ([["eth0", "999.1.1.1", 99]], [["eth0", "10.0.0.1", -1]], [["eth0", 7, 24]], [[7, "10.0.0.1", 24]], 7, [7], [[]],
        [["a/b", "10.0.0.1", 24]], [["eth0\n", "10.0.0.1", 24]], [["$(x)" * 9, "10.0.0.1", 24]], {"a": 1}, None,
        [["eth0", "::1", 24]], [["eth0", "10.0.0.1", True]], [["eth0", "10.0.0.1", 24, 1]])


@pytest.mark.parametrize("rows", ROWS, ids=repr)
def test_an_address_that_can_t_be_one_is_odd_and_not_taken(rows: Any) -> None:
    found = LaunchState().process(["##rig launch", json.dumps({"addresses": rows, "files": {}}), "##rig end"])
    assert found["odd"] and found["addresses"] == [], "the host's card: deploy/launching/apply.py, _told"


def test_a_launch_s_record_of_any_shape() -> None:
    good = launches.Member("a", "10.0.0.1", "/e", ("GPU-1",))
    whole = {"status": "pass", "why": "", "fingerprint": "f",
             "data": {"ranks": 2, "backend": "nccl", "version": "2", "bus_gbs": 1.5}}
    for text in [*map(json.dumps, mutations(whole, 3, 300)), *HOSTILE]:
        made = launches.record(launches.Member(**{**vars(good), "files": {launches.RECORD: text}}))
        assert f"{made.ranks} {made.bus_gbs:.2f}" and isinstance(made.why + made.backend + made.fingerprint, str)
    for text in HOSTILE:
        LaunchState().process(["##rig launch", text])


def test_measurements_of_any_shape_make_a_certificate_or_one_line(tmp_path: Path) -> None:
    gates, rules = load_gates(), load_rules()
    for number, odd in enumerate(mutations(h100(), 4, 400)):
        with suppress(RigError):
            for made in judge.certificates(odd, gates, rules, None, "lab-01"):
                if number % 40 == 0:
                    Console(file=io.StringIO(), width=100).print(table.render(made))
                    page.page(made, None, ())
            judge.silent(odd)


def test_a_snapshot_of_any_shape_tells_of_no_drift_or_of_some(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    ctx = of(State.of(WHOLE))
    whole = snapshot(ctx)
    ledger.remember("lab-01", "at", "2026-01-01", whole)
    kept = next((tmp_path / "qwen-rig/hosts").iterdir())
    assert ledger.applied("lab-01", "at") is not None
    for odd in mutations(whole, 6, 600):
        if isinstance(odd, dict):
            drift(Context(**{**vars(ctx), "applied": Applied("2026-01-01", odd)}))
    for text in HOSTILE:
        kept.write_text(text, encoding="utf-8")
        (tmp_path / "qwen-rig/history.jsonl").write_text(f"{text}\n", encoding="utf-8")
        assert ledger.applied("lab-01", "at") is None
        ledger.estimated(make_plan(ctx), "container", "standin")
    assert store.last("GPU-x", Identity("lab-01")) is None
