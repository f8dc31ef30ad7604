"""What a user asks for: options, data, names. Bad input is one line, and no host is dialled."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from qwen_rig import cli, exits
from qwen_rig.errors import RigError
from qwen_rig.finetune import checks, curve, data, options, record, words
from qwen_rig.host import train_qwen

CHAT = '{"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]}\n'
GOOD = {"a.jsonl": CHAT * 3, "b.json": json.dumps([{"prompt": "a", "completion": "b"}] * 3), "c.csv": "text\na\nb\nc\n",
        "d.json": '{"text": "a"}\n\n{"text": "b"}\n{"text": "c"}\n'}
BAD = {"empty.jsonl": "", "blank.jsonl": "\n\n", "torn.jsonl": CHAT + CHAT[:20], "list.jsonl": "[1]\n",
       "other.jsonl": '{"question": "a"}\n', "odd.jsonl": CHAT + '{"messages": "hi"}\n', "none.jsonl": '{"text": ""}\n',
       "deep.jsonl": "[" * 100_000 + "\n", "list.json": "[1, 2]", "half.parquet": "PAR1...", "c.csv": "a,b\n1,2\n",
       "text.txt": "hello", "nul.jsonl": "\0\n", "null.jsonl": "null\n", "latin.jsonl": "LATIN"}


def written(folder: Path, name: str, text: str) -> str:
    (folder / name).write_bytes(b'{"text": "caf\xe9"}\n' if text == "LATIN" else text.encode())
    return str(folder / name)


@pytest.mark.parametrize("name", GOOD)
def test_data_of_each_form_are_counted_and_named_by_content(name: str, tmp_path: Path) -> None:
    found = data.looked_at(written(tmp_path, name, GOOD[name]))
    assert found.samples == 3 and found.there == f"{found.sha256}{Path(name).suffix}"
    assert data.looked_at("OpenAssistant/oasst1").there is None


@pytest.mark.parametrize("name", [*BAD, "nowhere.jsonl", "."])
def test_bad_data_end_in_one_line_before_any_host(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str],
                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    path = written(tmp_path, name, BAD[name]) if name in BAD else str(tmp_path / name)
    code = cli.main(["train", "no-such-host", "-i", "nowhere.yml", "--model_name_or_path", "Qwen/Qwen3-8B",
                     "--dataset_name", path])
    said = capsys.readouterr().err
    assert code == exits.FAILED and len(said.splitlines()) == 1 and tmp_path.name in said, said
    assert "nowhere.yml" not in said


@pytest.mark.parametrize(("arguments", "said"), [
    (["train"], "the following arguments are required: HOST"),
    (["train", "h"], "no data set was given"),
    (["train", "h", "--name", "A b"], "can't be called 'A b'"),
    (["train", "h", "--name", "../x", "--dataset_name", "a/b"], "can't be called '../x'"),
    (["train", "h", "--max_length", "0", "--dataset_name", "a/b"], "--max_length can't be 0"),
    (["train", "h", "--max_length", "x", "--dataset_name", "a/b"], "invalid int value"),
    (["train", "h", "--learning_rate", "nan", "--dataset_name", "a/b"], "--learning_rate can't be nan"),
    (["train", "h", "--test_split_size", "1", "--dataset_name", "a/b"], "a share below 1"),
    (["train", "h", "--report_to", "mail", "--dataset_name", "a/b"], "invalid choice"),
    (["train", "h", "--dataset_name", "a/b\x1b[2J"], "can't be 'a/b\\x1b[2J'"),
    (["train", "h", "--load_in_4bit", "--use_peft", "false", "--dataset_name", "a/b"], "trains an adapter only"),
    (["runs", "attach"], "the following arguments are required: NAME"),
    (["runs", "attach", "nobody"], "there is no run nobody"),
    (["runs", "resume", "x", "--seed", "4"], "unrecognized arguments"),
    (["fetch", "../../etc"], "can't be called '../../etc'"),
    (["fetch", "nobody"], "there is no run nobody"),
    (["eval", "nobody", "--tokens", "0"], "whole number above 0"),
    (["eval", "nobody"], "there is no run nobody"),
])
def test_bad_words_are_one_line(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path,
                                monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    code = cli.main(arguments)
    printed = capsys.readouterr()
    assert code == exits.FAILED and said in printed.err and len(printed.err.splitlines()) == 1, printed.err
    assert printed.out == ""


def test_every_option_of_the_trainer_goes_through_the_door_and_back() -> None:
    import argparse

    parser = argparse.ArgumentParser()
    options.declare(parser)
    sample: dict[str, Any] = {name: 7 for name in train_qwen.WHOLE} | {name: 0.5 for name in train_qwen.FRACTIONS} \
        | {name: True for name in train_qwen.FLAGS}
    asked = {name: sample.get(name, "none") for name in train_qwen.DEFAULTS if name != "output_dir"}
    given = options.given(parser.parse_args(options.words(asked)))
    assert given == asked
    there = train_qwen.arguments(options.words(given))
    assert {name: getattr(there, name) for name in asked} == asked, "the trainer reads what the door wrote"


def test_smaller_settings_come_to_an_end_and_keep_the_effective_batch() -> None:
    settings = {**train_qwen.DEFAULTS, "per_device_train_batch_size": 6, "gradient_accumulation_steps": 3}
    seen = []
    while (less := options.smaller(settings)) is not None:
        seen.append(less)
        settings.update(less)
        assert settings["per_device_train_batch_size"] * settings["gradient_accumulation_steps"] >= 18
    assert [next(iter(each)) for each in seen] == ["per_device_train_batch_size"] * 2 + [
        "gradient_checkpointing", "load_in_4bit", "max_length", "max_length", "max_length"]
    assert "smallest settings" in words.again(settings, "x")


def test_a_record_is_read_back_and_a_name_is_one_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    made = record.Record("a", record.new_id(), "h", "lab.yml", "/root/qwen-rig/runs/a", "2026-11-29T13:00:00+00:00",
                         ("stack=qwen3",), points=({"step": 1, "loss": 2.0},))
    record.keep(made, new=True)
    assert record.load("a") == made and record.every() == [made]
    with pytest.raises(RigError, match="each run has its own name"):
        record.keep(made, new=True)
    assert record.free("Qwen/Qwen3-8B", "/data/My chats.jsonl") == "qwen3-8b-my-chats"
    for text in ("", "[]", "{", '{"name": "b"}', json.dumps({**json.loads(record.path("a").read_text()), "points": 3})):
        record.path("b").write_text(text)
        assert record.every() == [made]
        with pytest.raises(RigError, match="not the record of a run"):
            record.load("b")


def test_a_step_that_is_done_again_replaces_what_followed_it() -> None:
    points = [{"step": n, "loss": 1.0} for n in range(1, 11)]
    again = [{"step": n, "loss": 0.5} for n in (6, 7)]
    assert [(row["step"], row["loss"]) for row in curve.merged(points, again)] == [
        *((n, 1.0) for n in range(1, 6)), (6, 0.5), (7, 0.5)]
    assert curve.merged(points, points) == tuple(points)
    long = curve.merged((), [{"step": n, "loss": 1.0} for n in range(1, 3001)])
    assert len(long) <= curve.KEPT and (long[0]["step"], long[-1]["step"]) == (1, 3000), "the whole curve stays"


def said(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize(("line", "shown"), [
    (f"1001 eve {said('{}')}", "user eve"),
    (f"1001 eve {said(json.dumps({'run': 'a-run', 'step': 120, 'of': 400}) + '   ')}",
     "user eve, run a-run, step 120 of 400"),
    (f"1001 eve {said(json.dumps({'run': '../x', 'step': -1, 'of': 4}))}", "user eve"),
    (f"1001 eve {said(json.dumps({'run': ['a'], 'step': True, 'of': 10 ** 30}))}", "user eve"),
    (f"1001 eve {said('[' * 5000)}", "user eve"), ("1001 eve not-base64!", "user eve"), ("1001 eve ", "user eve"),
    (f"x eve {said('{}')}", None), ("", None), (f"1001 {'e' * 99} {said('{}')}", None),
])
def test_who_is_busy_is_read_as_that_users_own_word(line: str, shown: str | None) -> None:
    assert list(map(str, checks.busy(line))) == ([shown] if shown else [])
