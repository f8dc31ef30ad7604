"""Why a step is what it is: facts, each by a fact that exists; rules, each with its source; the decision."""

from __future__ import annotations

import re
from importlib import import_module
from typing import Any

import pytest

from qwen_rig.deploy import ORDER, watched
from qwen_rig.deploy.planning import explain, make_plan
from qwen_rig.plan.explain import Explanation

from .states import GTX1080, RTX5090, V100, bare, context, with_driver
from .test_plan import converged

HOSTS: dict[str, Any] = {
    "bare": lambda: bare(RTX5090), "old": lambda: with_driver(bare(RTX5090), "550.90.07", "proprietary"),
    "v100": lambda: bare(V100), "refused": lambda: bare(GTX1080), "none": bare,
    "container": lambda: with_driver(bare(RTX5090, kind="container"), "580.95.05", "open"),
    "converged": lambda: converged("guide"),
}


def explained(host: str, component: str, stack: str = "guide") -> Explanation:
    ctx = context(HOSTS[host](), stack)
    return explain(ctx, make_plan(ctx), component)


@pytest.mark.parametrize("component", ORDER)
@pytest.mark.parametrize("host", HOSTS)
def test_each_step_has_facts_rules_and_a_decision_with_sources(host: str, component: str) -> None:
    told = explained(host, component)
    assert told.rules and all(rule.text and rule.source for rule in told.rules)
    for fact in told.facts:
        for module, name in re.findall(r"facts\.(\w+)\.(\w+)", fact.read_by):
            assert hasattr(import_module(f"facts.{module}"), name), fact
        assert fact.value and fact.read_by.startswith("facts.")
    if host == "none":
        assert told.step is None and "no NVIDIA GPU" in told.refusals[0]
    else:
        assert told.step is not None and told.step.component == component and told.step.why
    assert bool(told.refusals) == (host in ("refused", "none"))


@pytest.mark.parametrize("host", HOSTS)
def test_what_a_step_writes_outside_the_env_is_watched(host: str) -> None:
    """Or the second run would write it again."""
    written = [change.path for step in make_plan(context(HOSTS[host]())).steps for change in step.files]
    assert {path for path in written if path.startswith(("/etc/", "/usr/"))} <= set(watched())
    assert host not in ("bare", "old") or any(path.startswith("/etc/") for path in written)


@pytest.mark.parametrize(("host", "component", "fact", "rule", "decision"), [
    ("old", "driver", "550.90.07 proprietary", "sm_120 with CUDA 12.8: driver ≥ 570.26", "sm_120 needs ≥ 570.26, open"),
    ("old", "driver", "RTX 5090 (10de:2b85)", "sm_120 runs on open kernel modules only", "580 open"),
    ("v100", "driver", "V100", "sm_70: branch 580 is the last that knows it", "580 proprietary"),
    ("container", "driver", "container", "in a container the driver belongs to the machine below", "serves cu128"),
    ("bare", "env", "none", "torch 2.8.0", "guide: 119 packages"),
    ("v100", "flash_attn", "V100", "out: sm_70: flash-attn needs compute capability 8.0", "SDPA"),
    ("bare", "training", "32607 MiB", "effective batch 16", "batch 8 × 2"),
    ("bare", "toolkit", "RTX 5090", "the least nvcc for these GPUs: 12.8", "nothing will be compiled"),
    ("converged", "verification", "partial", "done again when its fingerprint differs", "nothing has changed since"),
])
def test_what_it_says(host: str, component: str, fact: str, rule: str, decision: str) -> None:
    told = explained(host, component)
    assert any(fact in each.value for each in told.facts), told.facts
    assert any(rule in each.text for each in told.rules), told.rules
    assert told.step is not None and decision in f"{told.step.wanted}: {told.step.why}"
