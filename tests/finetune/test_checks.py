"""Whether a host can take a run, and what goes from it: decided from its state alone. States are synthesized."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import cache
from typing import Any

import pytest

from qwen_rig.catalog.stack import load_stack
from qwen_rig.errors import RigError
from qwen_rig.facts.records import EnvRecord
from qwen_rig.finetune import checks, leaving
from qwen_rig.finetune.data import Data
from qwen_rig.plan import Context
from tests.plan.states import bare, context
from tests.plan.test_plan import converged

DATA = Data("chats.jsonl", bytes=10 ** 6)
CONVERGED = cache(converged)
SEVEN = "Qwen/Qwen2.5-7B-Instruct"


def host(memory_mib: int = 24_564, cards: int = 1, free_mib: int = 150_000, stack: str = "guide",
         **set_: Any) -> Context:
    state = copy.deepcopy(CONVERGED(stack))
    state["gpus"] = [{"index": n, "name": "NVIDIA Card", "uuid": f"GPU-{n}", "memory_mib": memory_mib, "mig": False,
                      "pci_bus_id": f"00000000:0{n + 1}:00.0", "compute_capability": "8.9"} for n in range(cards)]
    state["pci_gpus"] = [{**state["pci_gpus"][0], "slot": f"0000:0{n + 1}:00.0"} for n in range(cards)]
    state["host"]["disks"] = [{"mount": "/", "fstype": "ext4", "size_mib": 10 ** 6, "free_mib": free_mib}]
    return context(state, stack, **set_)


def asked(ctx: Context, name: str = SEVEN, others: tuple[checks.Busy, ...] = (), **given: Any) -> list[str]:
    settings = checks.settings(ctx, {"model_name_or_path": name, **given})
    return checks.refuse(ctx, settings, DATA, others)


@pytest.mark.parametrize(("ctx", "given", "said"), [
    ({}, {"per_device_train_batch_size": 16, "max_length": 2048},
     "takes .* with batch 16 of 2048 tokens, and .* can be used .* --per_device_train_batch_size="),
    ({"memory_mib": 16_376}, {"per_device_train_batch_size": 1}, "--load_in_4bit"),
    ({"memory_mib": 3_000}, {"load_in_4bit": True}, "a smaller model or --max_length"),
    ({"memory_mib": 24_564}, {"use_peft": False, "per_device_train_batch_size": 1}, "by full takes"),
    ({"free_mib": 9_000}, {"per_device_train_batch_size": 1, "gradient_checkpointing": True},
     r"/ has 8.8 GiB free, and the run takes .* checkpoints .* data_dir=FOLDER"),
    ({}, {"name": "Qwen/Qwen9-1B"}, "the shape of 'Qwen/Qwen9-1B' isn't known"),
    ({}, {"name": "Qwen/Qwen3-8B"}, "stack guide can't train Qwen/Qwen3-8B: .* qwen-rig apply"),
    ({}, {"others": (checks.Busy(1001, "eve", "chats", 120, 400),)},
     "the GPU is busy: user eve, run chats, step 120 of 400"),
])
def test_a_run_that_cannot_be_is_refused_in_one_line_with_what_can(ctx: dict[str, Any], given: dict[str, Any],
                                                                   said: str) -> None:
    with pytest.raises(RigError, match=said) as refused:
        asked(host(**ctx), **given)
    assert "\n" not in str(refused.value)


def test_the_stack_is_the_one_that_the_env_was_built_of_not_the_one_of_knobs_that_apply_alone_had() -> None:
    state = copy.deepcopy(host(stack="qwen3").state)
    here = state.generations[0]
    built = replace(here, records=replace(here.records, env=EnvRecord("qwen3", "0" * 64)))
    plain = replace(host(stack="qwen3"), state=replace(state, generations=(built,)), stack=load_stack("guide"))
    given = {"per_device_train_batch_size": 1, "gradient_checkpointing": True, "load_in_4bit": True}
    assert checks.stack(plain).name == "qwen3" and asked(plain, "Qwen/Qwen3-8B", **given) == []


@pytest.mark.parametrize("memory_mib", [16_376, 24_564, 49_140])
@pytest.mark.parametrize("given", [{"per_device_train_batch_size": 64}, {"max_length": 2048},
                                   {"use_peft": False, "per_device_train_batch_size": 4}])
def test_what_is_refused_with_settings_is_taken_with_them(memory_mib: int, given: dict[str, Any]) -> None:
    """The remedy that a card names is one that works."""
    ctx, given = host(memory_mib), {"per_device_train_batch_size": 16, **given}
    with pytest.raises(RigError) as refused:
        asked(ctx, **given)
    named = dict(word.removeprefix("--").split("=") for word in refused.value.remedy.split())
    better = {name: True if value == "true" else int(value) for name, value in named.items()}
    assert asked(ctx, **{**given, **better}) == []


def test_a_busy_gpu_may_be_shared_and_a_host_without_an_env_is_told() -> None:
    others = (checks.Busy(1001, "eve"),)
    small = {"per_device_train_batch_size": 1, "gradient_checkpointing": True}
    assert asked(host(allow_busy_gpu=True), others=others, **small) == []
    with pytest.raises(RigError, match="no env to train in"):
        asked(context(bare("10de:2684")))
    assert "wasn't looked at" in asked(host(), "/models/mine")[0]


def test_each_card_gets_a_process_where_the_model_fits_one() -> None:
    def each(ctx: Context, **given: Any) -> bool:
        return checks.each_card(ctx, checks.settings(ctx, {"model_name_or_path": SEVEN, **given}))

    assert each(host(cards=2)) and not each(host(cards=1))
    assert not each(host(16_376, cards=2)) and each(host(16_376, cards=2), load_in_4bit=True)


def paths(ctx: Context, marked: tuple[str, ...] = (), runs: bool = True) -> set[str]:
    return {each.path for each in leaving.things(ctx, runs, marked)}


def test_a_conda_goes_where_it_is_marked_and_nobody_elses_env_is_in_it() -> None:
    state = copy.deepcopy(CONVERGED("guide"))
    prefix = state["conda"][0]["prefix"]
    assert prefix in paths(context(state), (prefix,)) and prefix not in paths(context(state))
    state["conda"][0]["envs"] = ["base", "qwen-train", "thesis"]
    ctx = context(state)
    assert prefix not in paths(ctx, (prefix,))
    assert f"conda in {prefix}, for its envs thesis" in leaving.stays(ctx, True, (prefix,))


def test_root_s_part_stays_without_root_and_the_repository_with_its_packages() -> None:
    state = copy.deepcopy(CONVERGED("guide"))
    state["dpkg"] = {"nvidia-open": "580"}
    assert leaving.REPOSITORY not in paths(context(state))
    state["dpkg"] = {}
    assert {leaving.REPOSITORY, "/var/lib/qwen-rig"} <= paths(context(state))
    state["host"].update(sudo="none", user={"name": "me", "uid": 1000, "home": "/home/me"})
    mine = paths(context(state))
    assert not any(path.startswith(("/etc", "/var", "/run")) for path in mine)
    assert "/home/me/.local/state/qwen-rig" in mine
    assert "/home/me/qwen-rig/runs" not in paths(context(state), runs=False)
