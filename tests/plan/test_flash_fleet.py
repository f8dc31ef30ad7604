"""flash-attn's plan where other hosts of the fleet build: for hosts that can't, and for those that fell back before."""

from __future__ import annotations

from dataclasses import replace

import pytest

from qwen_rig.deploy.flash_attn.plan import flash_spec
from qwen_rig.deploy.planning import make_plan
from qwen_rig.facts.records import Tried
from qwen_rig.facts.state import Toolkit
from qwen_rig.flash.key import Known
from qwen_rig.plan import Action, Context

from .states import context
from .test_plan import converged

SHA256 = "5" * 64


def nvcc(ctx: Context, release: str | None, memory_mib: int = 65536) -> Context:
    """The same host with that nvcc, or none, and that memory."""
    cuda = (Toolkit(f"/usr/local/cuda-{release}", release, f"{release}.89"),)
    state = replace(ctx.state, cuda=cuda if release else (),
                    machine=replace(ctx.machine, memory_mib=memory_mib, kind="container"))
    return replace(ctx, state=state)


def test_a_host_that_cannot_build_may_have_what_another_one_builds() -> None:
    able, = flash_spec(nvcc(context(converged("guide"), "guide"), "12.8")).builds
    assert able.here and able.here.jobs == 8 and able.key.archs == ("120",)
    for unable in (nvcc(context(converged("guide"), "guide"), None),
                   nvcc(context(converged("guide"), "guide"), "12.8", memory_mib=6144)):
        spec = flash_spec(unable)
        foreign, = spec.builds
        assert not foreign.here and foreign.key == able.key
        assert any(line.startswith("no build: ") for line in spec.rejected)
        step = make_plan(unable).step("flash_attn")
        assert "build" not in step.wanted, "the plan promises nothing that hangs on other hosts"


@pytest.mark.parametrize(("rung", "tried", "changes"), [
    ("sdpa", [], True), ("sdpa", [{"rung": "fleet", "sha256": SHA256, "why_not": "its kernels aren't proven"}], False),
    ("wheel", [], False)])
def test_a_host_on_sdpa_takes_the_fleets_wheel_once_there_is_one(
        rung: str, tried: list[dict[str, str]], changes: bool) -> None:
    ctx = nvcc(context(converged("guide"), "guide", flash_attn="auto", trust_domain="lab"), "12.8")
    spec = flash_spec(ctx)
    generation, = ctx.state.generations
    made = replace(generation.records.flash_attn, rung=rung, tried=tuple(Tried(**row) for row in tried),
                   fingerprint=spec.fingerprint)
    generation = replace(generation, records=replace(generation.records, flash_attn=made))
    ctx = replace(ctx, state=replace(ctx.state, generations=(generation,)))
    assert make_plan(ctx).step("flash_attn").action is Action.NONE
    key = spec.builds[0].key
    step = make_plan(replace(ctx, shared_wheels=(Known(key, SHA256, "lab-02"),))).step("flash_attn")
    assert (step.action is Action.CHANGE) is changes
    pinned = f"wheel {spec.wheels[0].name.partition('+')[0]}, else " if spec.wheels else ""
    assert not changes or step.wanted.startswith(f"{pinned}the one built on lab-02, domain lab, else "), step.wanted
    other = Known(replace(key, glibc="2.99"), SHA256, "lab-02")
    assert make_plan(replace(ctx, shared_wheels=(other,))).step("flash_attn").action is Action.NONE
