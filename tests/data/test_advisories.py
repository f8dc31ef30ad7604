"""Advisories: told of the versions that they are about, whoever's stack has them, and of no others."""

from __future__ import annotations

import pytest
from packaging.version import Version

from qwen_rig import render
from qwen_rig.catalog.advisories import about, load_advisories
from qwen_rig.deploy.planning import make_plan

from ..plan.states import RTX5090, bare, context

H200, T4 = "10de:2335", "10de:1eb8"


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


NEW = {"transformers": "5.17.0", "flash-linear-attention": "0.6.0", "triton": "3.6.0", "bitsandbytes": "0.50.2"}
WORDS = {"in float16", "races", "Hopper", "conv", "experts"}


@pytest.mark.parametrize(("cards", "family", "words"), [
    (["7.5"], None, {"in float16", "conv", "experts"}),
    (["7.0", "9.0"], None, {"in float16", "Hopper", "conv", "experts"}),
    (["9.0"], None, {"Hopper", "conv", "experts"}), (["8.0"], "Qwen3_5", {"conv"}),
    (["9.0"], "Qwen3_5Moe", {"Hopper", "conv", "experts"}), (["8.9", "10.0"], None, {"races", "conv", "experts"}),
    (["12.0"], None, {"races", "conv", "experts"}), (["10.0", "8.0"], "Qwen3_5", {"races", "conv"}),
    (["12.0"], "Qwen3", set()), (["7.5"], "Qwen3", set()), ([None], None, WORDS)])
def test_each_is_about_its_cards_and_its_models(cards: list[str | None], family: str | None, words: set[str]) -> None:
    found = about(NEW, [Version(card) if card else None for card in cards], family)
    assert {word for word in WORDS if any(word in a.text for a in found)} == words
    assert len(found) == len(words)


@pytest.mark.parametrize(("card", "model", "told"), [
    (H200, None, False), (H200, "Qwen/Qwen3.5-9B", False), (RTX5090, None, False), (T4, None, True)])
def test_the_plan_tells_of_float16_where_a_card_has_no_bf16(card: str, model: str | None, told: bool) -> None:
    made = make_plan(context(bare(card), "qwen3.5", model=model, python="3.12"))
    assert any("in float16" in advisory.text for advisory in made.advisories) is told


def test_the_plan_tells_them_of_guide_and_none_of_qwen3() -> None:
    ctx, qwen3 = context(bare(RTX5090)), context(bare(RTX5090), "qwen3")
    lines = [line for line in render.notes([(ctx.stack, make_plan(ctx))]) if line.endswith("]")]
    assert any("DPO" in line and "[huggingface/trl#2275]" in line for line in lines)
    assert any("yanked" in line for line in lines) and any("resume_from_checkpoint" in line for line in lines)
    assert len(lines) == 5 and make_plan(qwen3).advisories == ()
