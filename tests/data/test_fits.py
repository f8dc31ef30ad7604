"""The arithmetic of what fits: parameters as they are published, memory as it was measured, no card that fits what it
can't, and no shape that is guessed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from qwen_rig import cli, fits, speed
from qwen_rig.catalog.model_config import matching, read
from qwen_rig.catalog.models import Model, family, find, models
from qwen_rig.errors import RigError

ROOT = Path(__file__).parents[2]
MEASURED = yaml.safe_load((Path(__file__).parent / "measured_fits.yml").read_text())["measured"]


@pytest.mark.parametrize("model", models().values(), ids=lambda model: model.name)
def test_parameters_counted_from_the_shape_are_the_published(model: Model) -> None:
    assert model.billions and model.parameters / 1e9 == pytest.approx(model.billions, rel=0.015)


def test_the_adapter_is_as_peft_counts_it() -> None:
    """Qwen2.5-7B, rank 16, all linear layers: 40,370,176 trainable parameters (print_trainable_parameters)."""
    assert models()["Qwen/Qwen2.5-7B"].adapter == 40_370_176


def estimated(row: dict[str, Any]) -> float:
    """GiB by the arithmetic for a row of measured_fits.yml."""
    model = models()[row["model"]] if "model" in row else Model(
        name=row["what"], ways=family(row["shape"]["family"]), **row["shape"])
    model = replace(model, ways=replace(model.ways, **row.get("ways", {})))
    need = fits.need(model, row["method"], row["batch"], row["length"], row["checkpointing"], row["rank"])
    context = 0 if row.get("context", True) else need.context
    return (need.total - context) / 1024 + float(row.get("extra_gib", 0))


def table() -> str:
    """The table of docs/fits.md."""
    rows = [f"| {row['what']} | {row['gib']:g} | {estimated(row):.1f} "
            f"| {100 * (estimated(row) / row['gib'] - 1):+.0f} % | {row['source']} |" for row in MEASURED]
    return "\n".join(("| training | measured, GiB | by `rig fits` | error | source |", "|---|---|---|---|---|", *rows))


@pytest.mark.parametrize("row", MEASURED, ids=lambda row: row["what"])
def test_memory_is_within_15_percent_of_what_was_measured(row: dict[str, Any]) -> None:
    """Where the length of the texts was told; else within 20."""
    most = 0.2 if "not told" in row["what"] else 0.15
    assert estimated(row) == pytest.approx(row["gib"], rel=most)


def test_the_table_in_the_docs_is_that_of_the_arithmetic() -> None:
    assert table() in (ROOT / "docs" / "fits.md").read_text(), f"make it\n{table()}"


def test_four_bits_and_checkpointing_take_less_and_length_takes_more() -> None:
    model = models()["Qwen/Qwen2.5-7B"]
    plain = fits.need(model, "lora", 4, 1024, False)
    assert plain.weights == pytest.approx(7.616e9 * 2 / 2**20, rel=0.01)
    assert fits.need(model, "qlora", 4, 1024, False).weights < plain.weights / 1.9
    assert fits.need(model, "full", 4, 1024, False).weights == pytest.approx(plain.weights * 9)
    assert fits.need(model, "lora", 4, 1024, True).activations < plain.activations / 10
    assert fits.need(model, "lora", 4, 2048, False).estimate > plain.estimate * 1.8


def test_stacked_experts_stay_as_they_are_in_4_bits_and_modules_dont() -> None:
    stacked, modules = models()["Qwen/Qwen3.5-35B-A3B"], models()["Qwen/Qwen3-30B-A3B"]
    assert fits.need(stacked, "qlora", 1, 1024, True).weights > 0.9 * fits.need(stacked, "lora", 1, 1024, True).weights
    assert fits.need(modules, "qlora", 1, 1024, True).weights < 0.3 * fits.need(modules, "lora", 1, 1024, True).weights
    assert stacked.active < stacked.parameters / 8


@pytest.mark.parametrize(("memory", "lora", "qlora"), [
    (12282, "Qwen/Qwen2.5-3B", "Qwen/Qwen2.5-3B"), (32607, "Qwen/Qwen2.5-7B", "Qwen/Qwen2.5-32B"),
    (81559, "Qwen/Qwen2.5-32B", "Qwen/Qwen2.5-72B"), (2048, None, None)])
def test_the_largest_that_fits(memory: int, lora: str | None, qlora: str | None) -> None:
    assert (fits.largest(memory), fits.largest(memory, method="qlora")) == (lora, qlora)


def test_what_fits_really_is_below_the_card() -> None:
    for memory in (15360, 24564, 32607, 81559, 143771):
        for model in models().values():
            for method in fits.METHODS:
                found = fits.fit(model, memory, method)
                assert found is None or (found.need.total <= memory * 0.95 and 16 % found.batch == 0)


def test_a_certificate_moves_the_estimate() -> None:
    """An H200's 36 samples: a little more a sample than the sum says. One that took few leaves less room."""
    assert fits.measured(143771, 36) == pytest.approx(1.1, abs=0.1)
    model = models()["Qwen/Qwen3-8B"]
    few = fits.fit(model, 81559, measured=fits.measured(81559, 4))
    many = fits.fit(model, 81559, measured=fits.measured(81559, 22))
    assert few and many and few.batch < many.batch


def test_27b_on_a_5090_is_answered_by_one_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["fits", "--card", "5090", "--model", "27B"]) == 0
    said = capsys.readouterr().out
    assert "Qwen/Qwen3.6-27B (stack qwen3.5)" in said and "QLoRA   yes: batch" in said and "tokens/s" in said
    assert "LoRA    no: " in said and "nobody measured this card yet" in said


def test_speed_is_told_where_something_is_known_of_the_card() -> None:
    model = models()["Qwen/Qwen3-8B"]
    measured, peak = speed.Rate(657, "", True), speed.published("NVIDIA GeForce RTX 5090")
    assert peak and not peak.measured and speed.published("NVIDIA GeForce GTX 1080") is None
    plain = speed.tokens_per_second(model, "lora", False, measured, 16384)
    checkpointed = speed.tokens_per_second(model, "lora", True, measured, 16384)
    assert plain > checkpointed > speed.tokens_per_second(model, "qlora", True, measured, 16384)
    hybrid = models()["Qwen/Qwen3.5-9B"]
    assert speed.tokens_per_second(hybrid, "lora", True, measured, 16384, fast_kernels=False) < \
        speed.tokens_per_second(hybrid, "lora", True, measured, 16384)


@pytest.mark.parametrize("row", [row for row in MEASURED if "tokens_s" in row], ids=lambda row: row["what"])
def test_speed_is_within_15_percent_of_what_was_measured(row: dict[str, Any]) -> None:
    """On cards whose matrix product was measured; the hybrid's without flash-linear-attention."""
    rate, tokens = speed.Rate(row["tflops"], "", measured=True), row["batch"] * row["length"]
    found = speed.tokens_per_second(models()[row["model"]], row["method"], row["checkpointing"], rate, tokens,
                                    fast_kernels=False)
    assert found == pytest.approx(row["tokens_s"], rel=0.15)


def test_names_are_found_and_none_is_guessed(tmp_path: Path) -> None:
    assert [m.name for m in matching("7B", "--model")] == ["Qwen/Qwen2.5-7B"]
    assert find("Qwen/Qwen2.5-7B-Instruct", "model").parameters == models()["Qwen/Qwen2.5-7B"].parameters
    for name in ("Qwen/Qwen9-1T", "Qwen/Qwen2.5-7B-Instruct-AWQ", "meta-llama/Llama-3.1-8B", "", "B"):
        with pytest.raises(RigError, match="isn't known, and isn't guessed"):
            matching(name, "--model")


CONFIG = {"model_type": "qwen3_5", "tie_word_embeddings": False, "text_config": {
    "model_type": "qwen3_5_text", "hidden_size": 5120, "intermediate_size": 17408, "num_hidden_layers": 64,
    "num_attention_heads": 24, "num_key_value_heads": 4, "head_dim": 256, "vocab_size": 248320,
    "linear_num_key_heads": 16, "linear_num_value_heads": 48, "linear_key_head_dim": 128, "linear_value_head_dim": 128,
    "linear_conv_kernel_dim": 4, "layer_types": (["linear_attention"] * 3 + ["full_attention"]) * 16}}


def test_a_config_json_is_read(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    assert read(tmp_path).parameters == models()["Qwen/Qwen3.5-27B"].parameters


@pytest.mark.parametrize(("change", "words"), [
    (lambda c: c["text_config"].pop("head_dim"), "head_dim is missing"),
    (lambda c: c["text_config"].update(num_hidden_layers="64"), "num_hidden_layers is '64'"),
    (lambda c: c["text_config"].update(hidden_size=True), "hidden_size is True"),
    (lambda c: c["text_config"].update(hidden_size=0), "hidden_size is 0"),
    (lambda c: c["text_config"].update(layer_types=["full_attention", "sliding"]), "layer_types aren't"),
    (lambda c: c["text_config"].update(model_type="llama"), "model_type 'llama'"),
    (lambda c: c.pop("tie_word_embeddings"), "tie_word_embeddings is missing"),
    (lambda c: c["text_config"].pop("linear_num_key_heads"), "linear_num_key_heads is missing"),
])
def test_a_shape_that_cant_be_read_is_refused(tmp_path: Path, change: Any, words: str,
                                              capsys: pytest.CaptureFixture[str]) -> None:
    said = json.loads(json.dumps(CONFIG))
    change(said)
    (tmp_path / "config.json").write_text(json.dumps(said))
    assert cli.main(["fits", "--memory", "32607", "--model", str(tmp_path)]) == 1
    told = capsys.readouterr().err
    assert words in told and told.count("\n") == 1


@pytest.mark.parametrize("text", ["", "[]", "null", "{", "[" * 5000, "{}", '"x"'])
def test_a_strange_config_is_one_line(tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.json").write_text(text)
    assert cli.main(["fits", "--memory", "32607", "--model", str(tmp_path)]) == 1
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("given", [
    ["--card", "9999"], ["--card", ""], ["--card", "RTX"], ["--card", "1080"], ["--card", "5090", "--memory", "1"],
    ["--memory", "0"], ["--memory", "32607", "--model", "28B"], ["--memory", "32607", "--length", "0"]])
def test_bad_input_is_one_line(given: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["fits", *given]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_the_door_tells_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["fits", "--memory", "32607", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["a card"]
    assert told["memory_mib"] == 32607 and any("ESTIMATES" in note for note in told["notes"])
    assert {row["model"]: row["lora"]["batch"] for row in told["models"]}["Qwen/Qwen2.5-72B"] is None
    assert cli.main(["fits", "--memory", "32607"]) == 0
    assert "Qwen2.5-7B" in capsys.readouterr().out
    assert cli.main(["fits"]) == 1 and "rig fits HOST" in capsys.readouterr().err
