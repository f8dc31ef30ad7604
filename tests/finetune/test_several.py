"""A training over several hosts, as decided: what must be alike, the batch of a process, the checkpoint, who failed."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from qwen_rig import cli, exits
from qwen_rig.errors import RigError
from qwen_rig.finetune import options, record, several
from qwen_rig.finetune.several import End, Seat
from qwen_rig.launch import Member

train_qwen = options.train_qwen

SETTINGS = {**train_qwen.DEFAULTS, "model_name_or_path": "Qwen/Qwen3-8B", "per_device_train_batch_size": 4,
            "gradient_accumulation_steps": 4, "attn_implementation": "flash_attention_2"}


def seat(n: int, cards: int = 1, **more: Any) -> Seat:
    address = f"10.0.0.{n}"
    member = Member(f"lab-0{n}", address, "/e", tuple(f"GPU-{n}{card}" for card in range(cards)), torch="2.9.1",
                    addresses=(("eth0", address, 24),))
    return replace(Seat(member, SETTINGS, {"bf16": True}, ("qwen3", "abc"), "0123abc", "d" * 64, cards > 1), **more)


def test_hosts_that_are_alike_are_one_launch_in_the_order_of_the_command() -> None:
    made = several.together([seat(2), seat(1)], True)
    assert [made.rank(name) for name in ("lab-02", "lab-01")] == [0, 1] and made.master == "10.0.0.2"


@pytest.mark.parametrize(("other", "said"), [
    ({"model": None}, r"the model Qwen/Qwen3-8B is not whole on lab-02, .*prefetch_model=Qwen/Qwen3-8B"),
    ({"model": "ffff"}, r"the model Qwen/Qwen3-8B is not the same on all: lab-01 0123abc, lab-02 ffff"),
    ({"data": None}, "the data are not whole on lab-02"),
    ({"data": "e" * 64}, "the data are not the same on all: lab-01 dddddddddddd, lab-02 eeeeeeeeeeee"),
    ({"env": ("qwen3.5", "abc")}, "different stacks: lab-01 qwen3 abc, lab-02 qwen3.5 abc"),
    ({"env": ("qwen3", "abd")}, "different stacks"),
    ({"made": {"fp16": True}}, "train in different precision"),
    ({"settings": {**SETTINGS, "model_name_or_path": "Qwen/Qwen3-4B"}}, "set up for different models"),
    ({"cards": 2}, "different numbers of GPUs"),
])
def test_hosts_that_are_not_alike_are_refused_in_one_line_that_names_them(other: dict[str, Any], said: str) -> None:
    with pytest.raises(RigError, match=said) as refused:
        several.together([seat(1), seat(2, **other)], True)
    assert "\n" not in str(refused.value)


def test_a_model_that_takes_all_cards_of_a_host_is_not_spread_over_hosts() -> None:
    with pytest.raises(RigError, match="fits no single card of lab-01, lab-02"):
        several.together([seat(n, cards=2, each_card=False) for n in (1, 2)], False)
    assert several.together([seat(n, cards=2) for n in (1, 2)], False).cards == 2


def test_a_step_takes_as_many_samples_as_was_wanted_over_any_number_of_processes(
        monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """By the trainer's own division of what it is given."""
    import sys
    from types import SimpleNamespace

    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=SimpleNamespace(is_available=lambda: False)))
    chance = random.Random(18)
    for _ in range(300):
        batch, steps, processes = (chance.randint(1, 24) for _ in range(3))
        if processes == 1:
            continue
        made = several.shared(batch, batch * steps, processes)
        monkeypatch.setenv("WORLD_SIZE", str(processes))
        done = train_qwen.fitted({**SETTINGS, **made, "use_peft": True})
        taken = done["per_device_train_batch_size"] * done["gradient_accumulation_steps"] * processes
        assert batch * steps <= taken < batch * steps + processes, (batch, steps, processes)
        assert taken == made["per_device_train_batch_size"] * made["gradient_accumulation_steps"]
        assert done["per_device_train_batch_size"] <= batch, "no more than fits the card"
        assert bool(several.told_uneven(made, batch * steps)) == bool(batch * steps % processes)
    capsys.readouterr()


def test_all_train_by_the_first_ones_settings_with_what_each_can() -> None:
    weak = {**SETTINGS, "per_device_train_batch_size": 2, "attn_implementation": "sdpa", "lora_r": 8}
    made = several.agreed([seat(1), seat(2, settings=weak)], 2)
    assert (made["attn_implementation"], made["lora_r"]) == ("sdpa", 16)
    assert (made["per_device_train_batch_size"], made["gradient_accumulation_steps"]) == (2, 8), "16 over two"
    given = train_qwen.arguments(several.words(made))
    known = {name: value for name, value in made.items() if value is not None and name not in options.OURS}
    assert {name: getattr(given, name) for name in known} == known, "each is said, so that no host's file differs"


def test_they_go_on_from_the_last_checkpoint_that_all_have() -> None:
    assert several.common("x", {"a": (5, 10, 15), "b": (5, 10)}) == 10
    assert several.common("x", {"a": (), "b": ()}) == 0
    with pytest.raises(RigError, match=r"no checkpoint of x is on all of its hosts: a 5, 10; b none .* fetch x"):
        several.common("x", {"a": (5, 10), "b": ()})


ADDRESSES = {"a": "10.0.0.1", "b": "10.0.0.2", "c": "10.0.0.20"}
CLOSED = "RuntimeError: [pair.cc:547] Connection closed by peer [10.0.0.{}]:29513"


@pytest.mark.parametrize(("ends", "host"), [
    ([End("a", "failed", "b fell away: no sign of life for 150 s"), End("b", "unreachable", "?")], "b"),
    ([End("a", "failed", "b fell away: no sign of life for 150 s")], "b"),
    ([End("a", "failed", CLOSED.format(2)), End("b", "aborted", "it was rebooted")], "b"),
    ([End("a", "failed", CLOSED.format(2)), End("b", "failed", "ValueError: no room")], "b"),
    ([End("a", "failed", CLOSED.format(20)), End("b", "failed", CLOSED.format(20))], "c"),
    ([End("a", "failed", "ended, as b failed: no such file"), End("b", "failed", "no such file")], "b"),
    ([End("b", "failed", CLOSED.format(1)), End("a", "failed", "out of memory")], "a"),
    ([End("a", "failed", "out of memory"), End("b", "finished")], "a"),
    ([End("a", "failed", "RuntimeError: NCCL error: unhandled system error"), End("b", "failed", "Timed out")], "a"),
    ([End("a", "lost")], "a"),
])
def test_the_host_that_failed_first_is_named(ends: list[End], host: str) -> None:
    assert several.culprit(ends, ADDRESSES).host == host
    assert several.culprit(ends[::-1], ADDRESSES).host == host or all(several.PASSED_ON.search(e.why) for e in ends)


def test_a_record_names_all_hosts_and_one_that_is_bent_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    part = {name: f"/{name}" for name in record.PART}
    made = record.Record("a", record.new_id(), "one", "lab.yml", "/r", "2026-11-29T13:00:00+00:00",
                         crew={"one": part, "two": part})
    assert record.load(record.keep(made).name) == made and made.hosts == ("one", "two")
    bent: list[Any] = [{"two": part, "one": part}, {"one": {**part, "turn": 3}}, {"one": {}}, {"one": []}]
    for crew in bent:
        assert record.of({**vars(made), "knobs": [], "certificates": [], "points": [], "crew": crew}) is None


def test_data_of_the_hub_over_several_hosts_are_refused_before_a_host_is_dialled(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    code = cli.main(["train", "a", "b", "-i", "nowhere.yml", "--dataset_name", "OWNER/NAME"])
    said = capsys.readouterr().err
    assert code == exits.FAILED and said.startswith("qwen-rig: each host would fetch its own copy"), said
