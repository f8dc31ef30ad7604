"""The arithmetic of what fits: parameters as the model cards count them, and no card that fits what it can't."""

from __future__ import annotations

import json

import pytest

from qwen_rig import cli, fits


@pytest.mark.parametrize("model", fits.models().values(), ids=lambda model: model.name)
def test_parameters_counted_from_the_shape_are_the_model_cards(model: fits.Model) -> None:
    assert (model.linear + model.other) / 1e9 == pytest.approx(model.billions, rel=0.015)


def test_the_adapter_is_as_peft_counts_it() -> None:
    """Qwen2.5-7B, rank 16, all linear layers: 40,370,176 trainable parameters (print_trainable_parameters)."""
    assert fits.models()["Qwen/Qwen2.5-7B"].adapter == 40_370_176


def test_four_bits_and_checkpointing_take_less_and_length_takes_more() -> None:
    model = fits.models()["Qwen/Qwen2.5-7B"]
    plain = fits.need(model, False, 4, 1024, False)
    assert plain.weights == pytest.approx(7.616e9 * 2 / 2**20, rel=0.01)
    assert fits.need(model, True, 4, 1024, False).weights < plain.weights / 2.5
    assert fits.need(model, False, 4, 1024, True).activations < plain.activations / 10
    assert fits.need(model, False, 4, 2048, False).estimate > plain.estimate * 1.8


@pytest.mark.parametrize(("memory", "lora", "qlora"), [
    (12282, "Qwen/Qwen2.5-3B", "Qwen/Qwen2.5-7B"), (32607, "Qwen/Qwen2.5-7B", "Qwen/Qwen2.5-32B"),
    (81559, "Qwen/Qwen2.5-32B", "Qwen/Qwen2.5-72B"), (2048, None, None)])
def test_the_largest_that_fits(memory: int, lora: str | None, qlora: str | None) -> None:
    assert (fits.largest(memory), fits.largest(memory, four_bits=True)) == (lora, qlora)


def test_what_fits_really_is_below_the_card() -> None:
    for memory in (15360, 24564, 32607, 81559, 143771):
        for model in fits.models().values():
            found = fits.fit(model, memory)
            assert found is None or found.need.total <= memory * 0.95
            assert found is None or 16 % found.batch == 0


def test_the_door_tells_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["fits", "--memory", "32607", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["a card"]
    assert told["memory_mib"] == 32607 and any("ESTIMATES" in note for note in told["notes"])
    assert {row["model"]: row["lora"]["batch"] for row in told["models"]}["Qwen/Qwen2.5-72B"] is None
    assert cli.main(["fits", "--memory", "32607"]) == 0
    assert "Qwen2.5-7B" in capsys.readouterr().err
    assert cli.main(["fits"]) == 1 and "rig fits HOST" in capsys.readouterr().err
