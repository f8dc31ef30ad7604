"""What train_qwen.py reads before it imports anything: TRL's names, whose word is stronger, and each bad input in one
line. It runs on hosts; here it is asked without torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from qwen_rig.host import train_qwen
from qwen_rig.training import training_settings

SETTINGS = {**training_settings(12282, "8.9"), "trust_remote_code": True}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(train_qwen, "OWN", tmp_path / "own.json")
    (tmp_path / "training.json").write_text(json.dumps(SETTINGS))
    (tmp_path / "data.jsonl").write_text('{"text": "a"}\n')
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "notes.doc").write_text("x")
    (tmp_path / "none").mkdir()
    return tmp_path


def settled(*argv: str) -> dict[str, Any]:
    made: dict[str, Any] = train_qwen.settled(train_qwen.arguments([
        "--model_name_or_path", "m", "--dataset_name", "data.jsonl", "--settings", "training.json", *argv]))
    return made


def test_the_command_line_is_over_the_users_file_over_the_hosts(folder: Path) -> None:
    assert settled()["gradient_accumulation_steps"] == SETTINGS["gradient_accumulation_steps"]
    (folder / "own.json").write_text(json.dumps({"max_length": 2048, "lora_r": 8, "gradient_checkpointing": True}))
    made = settled("--lora_r", "32")
    assert (made["max_length"], made["lora_r"], made["gradient_checkpointing"]) == (2048, 32, True)
    assert settled("--gradient_checkpointing", "false")["gradient_checkpointing"] is False


def test_a_models_own_code_runs_on_the_users_word_alone(folder: Path) -> None:
    assert SETTINGS["trust_remote_code"] and not settled()["trust_remote_code"]
    assert settled("--trust_remote_code")["trust_remote_code"]


def test_trls_names_and_the_old_ones(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = settled("--learning_rate", "1e-5", "--num_train_epochs", "2", "--packing", "--seed", "7", "--max-steps", "3")
    assert (made["learning_rate"], made["num_train_epochs"], made["packing"], made["seed"], made["max_steps"]) == (
        1e-5, 2, True, 7, 3)
    assert not capsys.readouterr().err
    given = train_qwen.arguments(["--model", "a", "--data=b.jsonl", "--output", "c"])
    assert (given.model_name_or_path, given.dataset_name, given.output_dir) == ("a", "b.jsonl", "c")
    assert capsys.readouterr().err.count("the old name is read for this release") == 3


@pytest.mark.parametrize(("own", "words"), [
    ("{", "can't be read as JSON"), ("[]", "must hold one JSON object"), ('{"lora_rank": 8}', "no setting 'lora_rank'"),
    ('{"lora_r": "8"}', "lora_r can't be '8'"), ('{"packing": 1}', "packing can't be 1"),
    ('{"max_length": true}', "max_length can't be True"), ('{"seed": 1.5}', "seed can't be 1.5"),
    ('{"report_to": "x"}', "it takes none, tensorboard, wandb"), ('{"max_length": 0}', "--max_length can't be 0")])
def test_a_wrong_file_of_the_users_is_one_line(folder: Path, own: str, words: str) -> None:
    (folder / "own.json").write_text(own)
    with pytest.raises(SystemExit) as ended:
        settled()
    assert words in str(ended.value) and "\n" not in str(ended.value)


@pytest.mark.parametrize(("argv", "words"), [
    (["--settings", "nowhere.json"], "there is no file nowhere.json"), (["--learning_rate", "-1"], "can't be -1"),
    (["--test_split_size", "1.5"], "is a share below 1"), (["--per_device_train_batch_size", "0"], "can't be 0"),
    (["--load_in_4bit"], "this env has no bitsandbytes"), (["--report_to", "wandb"], "this env has no wandb")])
def test_bad_arguments_are_one_line(folder: Path, argv: list[str], words: str) -> None:
    with pytest.raises(SystemExit) as ended:
        settled(*argv)
    assert words in str(ended.value) and "\n" not in str(ended.value)


@pytest.mark.parametrize(("name", "words"), [
    ("nowhere.jsonl", "there is no file"), ("empty.jsonl", "is empty"), ("notes.doc", "is of no kind that is read"),
    ("none", "holds no data"), ("a/b/c.txt", "there is no file"), ("nowhere", "there is no file")])
def test_data_that_is_none_is_one_line(folder: Path, name: str, words: str) -> None:
    with pytest.raises(SystemExit, match=words):
        train_qwen.source(name)


def test_a_file_a_folder_and_a_name_of_the_hub(folder: Path) -> None:
    assert train_qwen.source("data.jsonl") == ("json", ["data.jsonl"])
    assert train_qwen.source("trl-lib/Capybara") == ("trl-lib/Capybara", None)
    (folder / "none" / "a.parquet").write_text("x")
    assert train_qwen.source("none") == ("parquet", ["none/a.parquet"])
    (folder / "none" / "b.csv").write_text("x")
    with pytest.raises(SystemExit, match="files of several kinds"):
        train_qwen.source("none")


class Data(list[dict[str, Any]]):
    """As much of a datasets.Dataset as `columns` asks for."""

    @property
    def column_names(self) -> list[str]:
        return list(self[0])

    def select_columns(self, names: list[str]) -> Data:
        return Data({name: row[name] for name in names} for row in self)


CHAT = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]


@pytest.mark.parametrize("row", [{"messages": CHAT, "id": 1}, {"prompt": "a", "completion": "b"}, {"text": "a"},
                                 {"prompt": CHAT[:1], "completion": CHAT[1:]}])
def test_each_form_of_data_is_taken_without_what_it_brings_beside(row: dict[str, Any]) -> None:
    assert "id" not in train_qwen.columns(Data([row]), "x").column_names


@pytest.mark.parametrize(("row", "words"), [
    ({"question": "a", "answer": "b"}, "has the columns question, answer: it takes messages"),
    ({"messages": "a"}, "sample 1 is wrong"), ({"messages": [{"from": "user", "value": "a"}]}, "sample 1 is wrong"),
    ({"text": ""}, "sample 1 is wrong"), ({"text": None}, "sample 1 is wrong"), ({"text": CHAT}, "sample 1 is wrong"),
    ({"messages": []}, "sample 1 is wrong"), ({"prompt": "a", "completion": 5}, "sample 1 is wrong")])
def test_wrong_samples_are_one_line_with_their_number(row: dict[str, Any], words: str) -> None:
    with pytest.raises(SystemExit, match=words):
        train_qwen.columns(Data([row]), "x")
