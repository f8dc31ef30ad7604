"""The knob `model`: it settles stack, prefetch, settings and Python together; what can't be is refused before a host is
touched. And what a release's grown lock costs a host that was right."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from qwen_rig import knobs
from qwen_rig.catalog.rules import load_rules
from qwen_rig.catalog.stack import load_stack
from qwen_rig.deploy.env.plan import Build, Mend
from qwen_rig.deploy.planning import make_plan
from qwen_rig.deploy.training.plan import settings
from qwen_rig.errors import RigError
from qwen_rig.facts.state import State
from qwen_rig.plan import Context
from qwen_rig.plan.choice import for_driver

from .states import RTX5090, bare, context, with_driver
from .test_plan import converged

T4 = {"device_id": "10de:1eb8"}


def wanted(model: str | None, **data: Any) -> knobs.Knobs:
    return knobs.read({**knobs.defaults(), "model": model, **data}, "test")


def planned(state: dict[str, Any], model: str, **data: Any) -> Context:
    made, rules = State.of(state), load_rules()
    found = for_driver(wanted(model, **data), made, rules, knobs.stack_of)
    return Context("lab-01", made, knobs.stack_of(found.stack), found, rules)


@pytest.mark.parametrize(("model", "stack", "python"), [
    (None, "guide", "3.10"), ("Qwen/Qwen2.5-7B-Instruct", "guide", "3.10"), ("Qwen/Qwen3-8B", "qwen3", "3.10"),
    ("Qwen/Qwen3-30B-A3B", "qwen3", "3.10"), ("Qwen/Qwen3.6-27B", "qwen3.5", "3.12"),
    ("Qwen/Qwen3.5-35B-A3B", "qwen3.5", "3.12")])
def test_model_settles_stack_python_and_prefetch(model: str | None, stack: str, python: str) -> None:
    found = wanted(model)
    assert (found.stack, found.python, found.prefetch_model) == (stack, python, model)
    assert model is None or wanted(model, prefetch_model="off").prefetch_model is None


@pytest.mark.parametrize(("data", "words"), [
    ({"model": "Qwen/Qwen9-1T"}, "the shape of 'Qwen/Qwen9-1T' isn't known, and isn't guessed"),
    ({"model": "Qwen/Qwen3.5-27B-FP8"}, "isn't known, and isn't guessed"), ({"model": 7}, "model must be a text"),
    ({"model": "Qwen/Qwen3.6-27B", "stack": "guide"}, "stack guide can't train Qwen/Qwen3.6-27B"),
    ({"model": "Qwen/Qwen3-8B", "stack": "guide"}, "take stack=qwen3"),
    ({"model": "Qwen/Qwen3.6-27B", "python": "3.10"}, "stack qwen3.5 has no lock for Python 3.10"),
    ({"stack": "qwen4"}, "there is no stack 'qwen4'"), ({"python": "3.13"}, "stack guide has no lock for Python 3.13")])
def test_a_bad_model_or_stack_is_one_line_before_a_host_is_dialled(data: dict[str, Any], words: str) -> None:
    with pytest.raises(RigError) as caught:
        knobs.read({**knobs.defaults(), **data}, "host lab-01")
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_a_newer_stack_trains_older_models_where_it_is_named() -> None:
    assert wanted("Qwen/Qwen3-8B", stack="qwen3.5").stack == "qwen3.5"


@pytest.mark.parametrize(("driver", "kind", "stack"), [
    ("570.133.07", "container", "qwen3.5-cu128"), ("580.95.05", "container", "qwen3.5"), (None, "container", "qwen3.5"),
    ("570.133.07", "vm", "qwen3.5")])  # there the driver is ours to replace
def test_a_driver_too_old_and_not_ours_takes_the_stack_for_it(driver: str | None, kind: str, stack: str) -> None:
    state = bare(RTX5090)
    state["host"]["kind"] = kind
    ctx = planned(with_driver(state, driver, "open") if driver else state, "Qwen/Qwen3.6-27B")
    assert (ctx.stack.name, ctx.knobs.stack, ctx.knobs.python) == (stack, stack, "3.12")
    assert f"takes stack {stack}" in make_plan(ctx).step("env").why


def test_the_settings_are_those_by_which_the_model_fits() -> None:
    made = settings(planned(bare(RTX5090), "Qwen/Qwen3.6-27B"))
    assert made["load_in_4bit"] and made["gradient_checkpointing"] and not made["trust_remote_code"]
    assert made["per_device_train_batch_size"] * made["gradient_accumulation_steps"] == 16
    assert made["model_name_or_path"] == "Qwen/Qwen3.6-27B" and "by rig fits" in made["batch_source"]["why"]
    small = settings(planned(bare(RTX5090), "Qwen/Qwen2.5-1.5B"))
    assert not small["load_in_4bit"] and small["per_device_train_batch_size"] >= made["per_device_train_batch_size"]
    assert "model_name_or_path" not in settings(context(bare(RTX5090)))


def test_two_cards_hold_what_one_does_not() -> None:
    assert not make_plan(planned(bare(RTX5090, RTX5090), "Qwen/Qwen2.5-72B", prefetch_model="off")).refusals
    assert "over 2 cards" in settings(planned(bare(RTX5090, RTX5090), "Qwen/Qwen2.5-72B"))["batch_source"]["why"]


def test_what_the_cards_cannot_train_is_refused_with_what_they_can() -> None:
    refused, = [r for r in make_plan(planned(bare(RTX5090), "Qwen/Qwen3.5-122B-A10B")).refusals if "QLoRA" in r.what]
    assert "1 × 31.8 GiB is here" in refused.what and "model=Qwen/" in refused.remedy
    t4 = bare(RTX5090)
    t4["pci_gpus"] = [{**t4["pci_gpus"][0], **T4}]
    said = [r.what for r in make_plan(planned(t4, "Qwen/Qwen3.5-2B")).refusals]
    assert any("gives NaN in float16" in what for what in said)
    assert not any("NaN" in r.what for r in make_plan(planned(t4, "Qwen/Qwen3-1.7B")).refusals)


def older(stack: str, missing: tuple[str, ...]) -> dict[str, Any]:
    """A host that was right by another lock of a stack, without these packages."""
    state = converged(stack)
    name = f".qwen-train-{'0' * 12}-1"
    state["env"]["target"] = name
    state["generations"][0].update(name=name, path=state["generations"][0]["path"].rpartition("/")[0] + f"/{name}")
    state["generations"][0]["records"]["env"] = {"stack": stack, "lock_sha256": "0" * 64}
    for package in missing:
        del state["env"]["packages"][package]
    return state


@pytest.mark.parametrize("stack", ["guide", "qwen3"])
def test_bitsandbytes_comes_in_place_to_a_host_that_was_right(stack: str) -> None:
    plan = make_plan(context(older(stack, ("bitsandbytes",)), stack))
    env = plan.step("env")
    assert isinstance(env.payload, Mend) and env.payload.names == ("bitsandbytes",)
    assert env.why == f"bitsandbytes absent → {load_stack(stack).pins['bitsandbytes'].version}"
    done = make_plan(context(older(stack, ()), stack)).step("env")
    assert not done.action.changes, "afterwards the env is right, whatever its folder is called"


@pytest.mark.parametrize("grown", [False, True])
def test_an_env_moves_to_another_stack_and_back_to_the_very_one(grown: bool) -> None:
    """Also to one that got a package in place, and still has its older lock's name; not to one that is gone or half."""
    state = older("guide", ()) if grown else converged("guide")
    here = state["generations"][0]
    here["records"]["env"] = {"stack": "guide", "lock_sha256": load_stack("guide").lock_sha256}
    there = make_plan(context(state, "qwen3")).step("env")
    assert there.action.value == "change" and "the lock of stack qwen3 is another" in there.why
    assert "the old env is kept" in there.why and isinstance(there.payload, Build) and not there.payload.kept
    moved = converged("qwen3")
    moved["generations"].append({**here, "gone": None})
    moved["generations"][0]["records"]["env"] = {"stack": "qwen3", "previous": here["name"]}
    back = make_plan(context(moved, "guide")).step("env")
    assert isinstance(back.payload, Build) and (back.payload.generation, back.payload.kept) == (here["name"], True)
    assert back.bytes == 0 and "is complete: tested again, then linked" in back.why
    for spoilt in ({"complete": False}, {"gone": "no Python in it"}):
        moved["generations"][1] = {**here, "gone": None, **spoilt}
        again = make_plan(context(moved, "guide")).step("env").payload
        assert isinstance(again, Build) and not again.kept


@pytest.mark.parametrize("change", ["torch", "stack", "many"])
def test_another_torch_another_stack_or_much_else_is_built_beside(change: str) -> None:
    state = older("guide", ("torch",) if change == "torch" else ())
    if change == "stack":
        state["generations"][0]["records"]["env"]["stack"] = "qwen3"
    if change == "many":
        for package in ("transformers", "trl", "peft", "accelerate"):
            state["env"]["packages"][package] = "0.1"
    env = make_plan(context(state, "guide")).step("env")
    assert env.action.changes and env.payload is not None and env.payload.new_env


def test_a_host_whose_settings_allow_a_models_own_code_is_not_written_again() -> None:
    """Release 0.2.0 wrote trust_remote_code true; train_qwen.py reads it no more."""
    state = converged("guide")
    was = state["generations"][0]["records"]["training"]
    state["generations"][0]["records"]["training"] = {**was, "trust_remote_code": True}
    assert not make_plan(context(state)).step("training").action.changes


def test_the_user_s_own_stack_may_say_nothing_of_what_it_trains() -> None:
    assert replace(load_stack("guide"), trains=()).trains == () and load_stack("standin").trains == ()
