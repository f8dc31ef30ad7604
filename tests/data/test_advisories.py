"""Advisories: told of the versions that they are about, whoever's stack has them, and of no others."""

from __future__ import annotations

import pytest

from qwen_rig import render
from qwen_rig.catalog.advisories import about, load_advisories
from qwen_rig.deploy.planning import make_plan

from ..plan.states import RTX5090, bare, context


@pytest.mark.parametrize(("versions", "sources"), [
    ({"trl": "0.11.0", "transformers": "4.46.0"}, ["trl#2275", "transformers#34263", "LLaMA-Factory#8139", "yank"]),
    ({"trl": "0.11.4", "transformers": "4.45.2"}, ["LLaMA-Factory#8139"]),
    ({"trl": "0.12.2", "transformers": "4.46.3", "torch": "2.5.1"}, ["LLaMA-Factory#8139"]),
    ({"transformers": "4.46.3", "torch": "2.8.0+cu128"}, ["transformers#34631", "LLaMA-Factory#8139"]),
    ({"trl": "0.12.1", "transformers": "4.47.1"}, ["LLaMA-Factory#8139", "trl#2445"]),
    ({"trl": "0.29.1", "transformers": "4.57.6", "torch": "2.9.1"}, []),
    ({}, []),
])
def test_each_is_about_its_versions(versions: dict[str, str], sources: list[str]) -> None:
    found = [advisory.source for advisory in about(versions)]
    assert len(found) == len(sources) and all(part in source for part, source in zip(sources, found, strict=True))


def test_every_one_has_a_condition_and_a_source() -> None:
    assert all(advisory.when and advisory.source and advisory.text for advisory in load_advisories())


def test_the_plan_tells_them_of_guide_and_none_of_qwen3() -> None:
    ctx, qwen3 = context(bare(RTX5090)), context(bare(RTX5090), "qwen3")
    lines = [line for line in render.notes([(ctx.stack, make_plan(ctx))]) if line.endswith("]")]
    assert any("DPO" in line and "[huggingface/trl#2275]" in line for line in lines)
    assert any("yanked" in line for line in lines) and any("resume_from_checkpoint" in line for line in lines)
    assert len(lines) == 5 and make_plan(qwen3).advisories == ()
