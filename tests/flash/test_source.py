"""Where flash-attn's sources may be built, and what the plan says of the rungs. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from packaging.version import Version

from qwen_rig.catalog.flash_build import load
from qwen_rig.deploy.flash_attn.plan import flash_spec
from qwen_rig.deploy.planning import explain, make_plan
from qwen_rig.deploy.toolkit.plan import nvcc_releases
from qwen_rig.flash.source import Room, misfits
from qwen_rig.plan import Action, Context

from ..plan.states import RTX4090, RTX5090, V100, bare, context, with_driver

SOURCE, BOUNDS = load()
ROOM = Room([Version("12.0")], cores=16.0, memory_mib=64_000, nvccs=["12.8"], least_nvcc="12.8", compiler=True,
            glibc="2.36")


def test_a_5090_with_the_toolkit_can_build() -> None:
    assert misfits(SOURCE, "12.8", ROOM) == []
    assert misfits(SOURCE, "13.0", replace(ROOM, nvccs=["12.8", "13.0"])) == []


@pytest.mark.parametrize(("room", "cuda", "said"), [
    ({"nvccs": ["13.0"]}, "12.8", "a 13.0 nvcc with cu128: torch refuses another CUDA major"),
    ({"nvccs": ["12.4"]}, "12.8", "nvcc 12.4 can't compile for these cards: they need 12.8 or newer"),
    ({"nvccs": []}, "12.8", "no nvcc here"),
    ({}, None, "the stack has no torch"),
    ({"capabilities": [Version("7.5")]}, "12.8", "sm_75: flash-attn needs compute capability 8.0 or more"),
    ({"capabilities": [Version("11.0")]}, "12.8", "sm_110: flash-attn 2.8.3.post2 can't be built for it"),
    ({"capabilities": [None]}, "12.8", "a GPU's compute capability isn't known"),
    ({"memory_mib": 8192}, "12.8", "less than one compile job"),
    ({"compiler": False}, "12.8", "no C++ compiler"),
    ({"glibc": None}, "12.8", "the glibc can't be told"),
])
def test_why_not(room: dict[str, Any], cuda: str | None, said: str) -> None:
    found = misfits(SOURCE, cuda, replace(ROOM, **room))
    assert len(found) == 1 and said in found[0], found


def test_whose_memory_the_user_vouches_for_is_not_asked() -> None:
    assert misfits(SOURCE, "12.8", replace(ROOM, memory_mib=8192, jobs=1)) == []


def ready(card: str = RTX5090, *toolkits: str, **changes: Any) -> dict[str, Any]:
    state = with_driver(bare(card, compilers={"gcc": "12.2.0", "g++": "12.2.0"}, **changes), "580.95.05", "open")
    state["cuda"] = [{"path": f"/usr/local/cuda-{release}", "release": release, "version": release}
                     for release in toolkits]
    return state


@pytest.mark.parametrize(("state", "knobs", "wanted"), [
    (ready(RTX5090, "12.8"), {}, "wheel flash_attn-2.8.3, else build for sm_120 with 8 jobs, else SDPA"),
    (ready(RTX5090), {}, "wheel flash_attn-2.8.3, else SDPA"),
    (ready(RTX5090, "12.8"), {"flash_attn": "wheel"}, "wheel flash_attn-2.8.3, else SDPA"),
    (ready(RTX4090, "12.8", memory_mib=16384), {"flash_attn": "build"}, "build for sm_80 with 2 jobs, else SDPA"),
    (ready(RTX5090, "12.8"), {"flash_attn": "build", "flash_attn_git_head": True, "flash_attn_jobs": 3},
     "build for sm_120 with 3 jobs, else build of the git head for sm_120 with 3 jobs, else SDPA"),
    (ready(RTX5090, "12.8"), {"stack": "qwen3"}, "build for sm_120 with 8 jobs, else SDPA"),
    (ready(RTX5090, "12.8", glibc="2.31"), {"flash_attn": "wheel", "flash_attn_unverified": True},
     "wheel flash_attn-2.8.3, else SDPA"),
    (ready(RTX5090, "12.8"), {"flash_attn": "off"}, "SDPA"),
    (ready(V100, "12.8"), {}, "SDPA"),
])
def test_the_plan_names_the_rungs(state: dict[str, Any], knobs: dict[str, Any], wanted: str) -> None:
    assert make_plan(context(state, **knobs)).step("flash_attn").wanted == wanted


def test_a_rung_that_is_out_says_why_in_the_plan_and_when_asked() -> None:
    ctx = context(ready(RTX5090, "13.0"))
    why = "no build: a 13.0 nvcc with cu128"
    assert why in make_plan(ctx).step("flash_attn").why
    assert any(why in rule.text for rule in explain(ctx, make_plan(ctx), "flash_attn").rules)


def test_asking_for_a_build_brings_an_nvcc_of_torchs_major() -> None:
    for toolkits, action in (((), Action.ADD), (("13.0",), Action.CHANGE), (("12.9",), Action.NONE)):
        plan = make_plan(context(ready(RTX5090, *toolkits), flash_attn="build"))
        assert plan.step("toolkit").action is action
        assert plan.step("flash_attn").wanted == "build for sm_120 with 8 jobs, else SDPA"
    pod = make_plan(context(ready(RTX5090, kind="container"), flash_attn="build"))
    assert pod.step("toolkit").action is Action.NA and pod.step("flash_attn").wanted == "SDPA"


B300 = "10de:3182"  # compute capability 10.3


@pytest.mark.parametrize(("cuda", "card", "here", "wanted", "package"), [
    ("12.8", RTX5090, [], "≥ 12.8", "cuda-toolkit-12-8"),
    ("12.8", RTX5090, ["13.0"], "≥ 12.8", "cuda-toolkit-12-8"),
    ("12.8", B300, ["12.8"], "≥ 12.9", "cuda-toolkit-12-9"),
    ("13.0", RTX5090, [], "≥ 13.0", "cuda-toolkit-13-0"),
    ("13.0", RTX5090, ["12.8"], "≥ 13.0", "cuda-toolkit-13-0"),
    ("13.2", RTX4090, ["12.4"], "≥ 13.0", "cuda-toolkit-13-0"),
])
def test_the_nvcc_that_a_build_brings_is_the_one_it_wants(cuda: str, card: str, here: list[str], wanted: str,
                                                          package: str) -> None:
    def planned(*toolkits: str) -> Context:
        return built_for(cuda, context(ready(card, *toolkits), flash_attn="build", nvidia_driver="never"))

    step = make_plan(planned(*here)).step("toolkit")
    assert (step.wanted, step.payload.names) == (wanted, (package,))
    came = package.removeprefix("cuda-toolkit-").replace("-", ".")
    assert came in nvcc_releases(planned(*here))
    assert make_plan(planned(*here, came)).step("toolkit").action is Action.NONE, "the second run finds nothing to do"


def test_without_a_package_for_torchs_cuda_no_toolkit_comes_and_the_plan_says_so() -> None:
    ctx = built_for("13.0", context(ready(RTX5090, "12.8"), flash_attn="build"))
    step = make_plan(replace(ctx, rules=replace(ctx.rules, toolkits={"12.8": "cuda-toolkit-12-8"}))).step("toolkit")
    assert step.action is Action.NA and "no package is known of an nvcc ≥ 12.8 for cu130" in step.why


def built_for(cuda: str, ctx: Context) -> Context:
    """The same host, for a stack whose torch is built for that CUDA."""
    assert ctx.stack.torch is not None
    return replace(ctx, stack=replace(ctx.stack, cuda=cuda, torch=replace(ctx.stack.torch, cuda=cuda)))


def test_what_a_decision_hangs_on_and_what_not() -> None:
    def fingerprint(*toolkits: str, **knobs: Any) -> str:
        return flash_spec(context(ready(RTX5090, *toolkits), **knobs)).fingerprint

    assert fingerprint("12.8") == fingerprint("12.8", "12.9"), "another fitting nvcc changes nothing"
    assert fingerprint("12.8") == fingerprint("12.8", flash_attn_jobs=2), "how fast it is built neither"
    assert len({fingerprint(), fingerprint("12.8"), fingerprint("12.8", flash_attn="build"), fingerprint("13.0")}) == 4
