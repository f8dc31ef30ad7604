"""The typed state: cells without a value are None, and what has another type is left out and said, never raised."""

from __future__ import annotations

import copy
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import pytest

from qwen_rig import doctor
from qwen_rig.catalog.rules import load_rules
from qwen_rig.deploy import ORDER
from qwen_rig.deploy.planning import explain, make_plan
from qwen_rig.facts._smi import value
from qwen_rig.facts.probe import HostState
from qwen_rig.facts.records import Records
from qwen_rig.facts.state import SmiGpu, State
from qwen_rig.plan import Context
from qwen_rig.plan.compare import traits
from qwen_rig.plan.context import gpus_of

from ..plan.states import REPO, RTX5090, bare, context
from ..plan.test_plan import converged

VALUELESS = ("[N/A]", "N/A", "[Not Supported]", "[Unknown Error]", "Unknown Error", "[GPU requires reset]", "ERR!",
             "Unknown", "[Insufficient Permissions]", "")
GOOD = {"index": "0", "name": "NVIDIA GeForce RTX 5090", "uuid": "GPU-0", "pci.bus_id": "00000000:01:00.0",
        "memory.total [MiB]": "32607 MiB", "compute_cap": "12.0", "mig.mode.current": "Disabled"}
FIELDS = {"pci.bus_id": "pci_bus_id", "memory.total [MiB]": "memory_mib", "compute_cap": "compute_capability",
          "mig.mode.current": "mig"}


def probed(*rows: dict[str, str]) -> dict[str, Any]:
    """What the probe brings of a host with two cards on its bus, nvidia-smi printing these rows."""
    lines = [", ".join(GOOD), *(", ".join(row.values()) for row in rows)]
    state = HostState().process(["##rig smi", "path=/usr/bin/nvidia-smi", "rc=0", "table_rc=0", "##rig smi.csv", *lines,
                                 "##rig smi.list", "##rig smi.table", "Driver Version: 580.95.05  CUDA Version: 13.0"])
    return {**bare(RTX5090, RTX5090), "gpus": state["gpus"]}


@pytest.mark.parametrize("word", VALUELESS)
@pytest.mark.parametrize("column", GOOD)
def test_a_cell_without_a_value_beside_a_good_gpu_is_none_and_the_plan_is_made(column: str, word: str) -> None:
    bad = {"index": "1", "name": "NVIDIA GeForce RTX 5090", "uuid": "GPU-1", "pci.bus_id": "00000000:02:00.0",
           **{name: GOOD[name] for name in ("memory.total [MiB]", "compute_cap", "mig.mode.current")}, column: word}
    raw = probed(GOOD, bad)
    state = State.of(raw)
    assert state.problems == {} and state.gpus[0] == SmiGpu(
        0, "NVIDIA GeForce RTX 5090", "GPU-0", "00000000:01:00.0", 32607, "12.0", False)
    field = FIELDS.get(column, column)
    assert getattr(state.gpus[1], field) is None and raw["gpus"][1][field] is None, "in the fact, too"
    assert sum(found is None for found in asdict(state.gpus[1]).values()) == 1, "and nothing else"
    assert word == "" or word not in asdict(state.gpus[1]).values()
    cards = gpus_of(state, load_rules())
    assert len(cards) == 2 and {card.name for card in cards} == {"NVIDIA GeForce RTX 5090"}
    looked_at(state)


@pytest.mark.parametrize("word", VALUELESS)
def test_what_came_as_a_word_all_the_same_is_none_in_the_state(word: str) -> None:
    raw = probed(GOOD)
    raw["gpus"].append(dict.fromkeys(raw["gpus"][0], word))
    state = State.of(raw)
    assert state.problems == {} and state.gpus[1] == SmiGpu()
    looked_at(state)


def looked_at(state: State, stack: str = "standin") -> None:
    """All that reads a state."""
    known = context(bare(RTX5090), stack)
    ctx = Context("lab-01", state, known.stack, known.knobs, known.rules)
    plan = make_plan(ctx)
    assert plan.steps or plan.refusals
    traits(ctx)
    doctor.findings((), doctor.signs(state), doctor.words(state))
    for component in ORDER:
        explain(ctx, plan, component)


def places(raw: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place of plain data, tables and lists included."""
    yield at
    for key in (raw if isinstance(raw, dict) else range(len(raw)) if isinstance(raw, list) else ()):
        yield from places(raw[key], (*at, key))


def changed(raw: Any, at: tuple[Any, ...], to: Any) -> Any:
    made = copy.deepcopy(raw)
    if not at:
        return to
    inner = made
    for key in at[:-1]:
        inner = inner[key]
    inner[at[-1]] = to
    return made


def whole() -> dict[str, Any]:
    """A host of which everything is known: each part and each record has something in it."""
    state = converged("standin")
    state["gpus"] = [{"index": 0, "name": "RTX", "uuid": "GPU-0", "pci_bus_id": "00000000:01:00.0", "memory_mib": 32607,
                      "compute_capability": "12.0", "mig": False}]
    state["host"] |= {
        "gpu_users": [{"pid": 7, "user": "ann", "name": "python"}], "clock_offset_s": 3, "kind_evidence": ["by x"],
        "apt_lock": {"path": "/l", "pid": 8, "name": "apt"}}
    state["cuda"] = [{"path": "/usr/local/cuda", "release": "12.8", "version": "12.8.93"}]
    state["driver_upgrade"] = {"when": "2026-11-20", "packages": {"nvidia-open": ["1", "2"]}}
    state["texts"] = {"/etc/x": "y\n"}
    state["env"] |= {"torch": {"version": "2.8.0", "cuda": "12.8"}, "duplicates": ["six"]}
    records, proof = state["generations"][0]["records"], {"worst": 0.1, "tolerance": 0.2}
    records["env"] = {"stack": "standin", "lock_sha256": "0" * 64, "refused": "a:b", "previous": ".x",
                      "hf_endpoint": "h"}
    tried = [{"rung": "wheel", "why_not": "no", "last": ["a"], "sha256": "b"}]
    records["flash_attn"] |= {"rung": "wheel", "tried": tried,
                              "archs": ["sm_120"], "rejected": ["c"], "proof": proof, "minutes": 1.5, "why": "works"}
    records["prefetch"] = {"model": "Qwen/Qwen2.5-0.5B", "home": "/h", "commit": "0123456789abcdef"}
    state["generations"][0]["beside"] = {"accelerate.yaml": "x", "train_qwen.py": "y", "snapshot": "whole"}
    return state


WHOLE = whole()
ODD: tuple[Any, ...] = (7, "x", None, [], {}, [{"x": [7]}], {"x": {"y": [None]}}, True, -1.5)


def test_a_whole_state_has_no_problem_and_is_made_in_well_under_five_milliseconds() -> None:
    assert State.of(WHOLE).problems == {}
    began = time.process_time()
    for _ in range(20):
        State.of(converged_guide)
    assert (time.process_time() - began) / 20 < 0.005


converged_guide = converged("guide")


@pytest.mark.parametrize("odd", ODD, ids=repr)
def test_no_value_of_another_type_raises_or_goes_unsaid(odd: Any) -> None:
    """Wherever it stands. The record of another shape is absent, and nothing else is lost with it."""
    for at in places(WHOLE):
        state = State.of(changed(WHOLE, at, odd))
        assert isinstance(state, State)
        if not at:
            assert state.driver.error == "unknown", "never health"
        elif len(at) > 4 and at[:3] == ("generations", 0, "records"):
            others = {kind: getattr(state.generations[0].records, kind) for kind in Records.__annotations__}
            gone = others.pop(at[3]) is None
            assert gone == any(f".rig/{at[3]}.json" in part for part in state.problems), (at, state.problems)
            assert all(others.values())


@pytest.mark.parametrize("odd", ODD, ids=repr)
def test_no_value_of_another_type_breaks_a_plan(odd: Any) -> None:
    known = context(bare(RTX5090), "standin")
    for at in places(WHOLE):
        ctx = Context("lab-01", State.of(changed(WHOLE, at, odd)), known.stack, known.knobs, known.rules)
        plan = make_plan(ctx)
        assert plan.steps or plan.refusals, at
        traits(ctx)
        doctor.findings((), doctor.signs(ctx.state), doctor.words(ctx.state))


@pytest.mark.parametrize("raw", [None, 7, "x", [], [{}], {"host": 7, "gpus": "x", "env": [], "generations": {}}])
def test_what_is_no_state_is_an_empty_one_that_says_so(raw: Any) -> None:
    state = State.of(raw)
    assert state.problems and state.driver.error == "unknown" and state.machine.kind == "unknown"
    looked_at(state)


def test_a_record_of_another_shape_counts_as_absent_and_the_plan_says_so() -> None:
    state = converged()
    state["generations"][0]["records"]["flash_attn"]["tried"] = 7
    known = context(bare(RTX5090), "standin")
    plan = make_plan(Context("lab-01", State.of(state), known.stack, known.knobs, known.rules))
    assert plan.step("flash_attn").now == "none" and plan.step_changes("flash_attn")
    assert any(".rig/flash_attn.json could not be read" in said for said in plan.caveats)


def test_one_row_that_lacks_what_it_needs_costs_that_row() -> None:
    state = bare(RTX5090, disks=[{"fstype": "ext4"}, {"mount": "/", "fstype": "ext4", "free_mib": 9, "size_mib": "x"}])
    made = State.of(state)
    assert [(disk.mount, disk.free_mib, disk.size_mib) for disk in made.machine.disks] == [("/", 9, 0)]
    assert len(made.problems) == 2 and all(part.startswith("host.disks.") for part in made.problems)


@pytest.mark.parametrize(("cards", "rows", "names"), [
    (2, [None, None], ["A", "B"]), (2, ["00000000:02:00.0", None], ["B", "A"]), (2, [None], ["5090", "5090"]),
    (0, [None, None], ["A", "B"]), (1, ["ERR!", "no id"], ["5090", "B"]),
])
def test_gpus_whose_bus_id_is_withheld_are_counted_once(cards: int, rows: list[str | None], names: list[str]) -> None:
    state = bare(*[RTX5090] * cards)
    state["gpus"] = [{"name": name, "pci_bus_id": at} for name, at in zip("AB", rows, strict=False)]
    assert [card.name[-4:] for card in gpus_of(State.of(state), load_rules())] == names


def test_the_words_for_no_value_are_known_in_one_place() -> None:
    assert [value(word) for word in VALUELESS] == [None] * len(VALUELESS)
    assert value("NVIDIA H200") == "NVIDIA H200" and value(" GPU-0 ") == "GPU-0"


def test_plans_know_no_pyinfra() -> None:
    code = ("import sys, qwen_rig.plan.explain, qwen_rig.doctor, qwen_rig.plan.compare, qwen_rig.facts.state\n"
            "print([name for name in sys.modules if name.partition('.')[0] == 'pyinfra'])")
    done = subprocess.run([sys.executable, "-c", code], text=True, capture_output=True, cwd=REPO)
    assert (done.stdout, done.stderr) == ("[]\n", "")
