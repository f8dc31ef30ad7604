"""Bad values for every option of every verb of training, made from the parsers themselves: one line each, exit status
1, nothing on standard output, no host dialled and nothing written."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import pytest

from qwen_rig import cli, exits
from qwen_rig.finetune import record
from qwen_rig.finetune.record import Record
from qwen_rig.host import train_qwen

VERBS = ("train", "runs", "fetch", "eval", "watch", "remove")
NUMBERS = ("", "x", "-1", "1e99", "nan", "9" * 30, "9" * 5000, "0x10", "1,5", "١٠x")
NAMES = ("", "..", "../../etc", "A b", "a" * 41, "-", "a\n", "a\x1b[2J", "a/b", "é", "nobody")
TEXTS = ("", "\x1b[2J", "a\nb", "x" * 2000, "\udcff")
PATHS = ("", "~nobody-of-that-name/x", "x" * 300, "nowhere/no.yml")
FREE = ("model_name_or_path", "dataset_config", "dataset_train_split", "dataset_test_split", "lora_target_modules",
        "attn_implementation", "dataset_name")


def leaves() -> Iterator[argparse.ArgumentParser]:
    """The parsers of these verbs, as the command line has them."""
    for leaf in cli.leaves(cli.parser()):
        if leaf.prog.split()[1] in VERBS:
            yield leaf


def bad(action: argparse.Action) -> tuple[str, ...]:
    """Values that the option can't take."""
    if action.dest in train_qwen.WHOLE or action.dest in train_qwen.FRACTIONS or action.dest in ("tokens", "samples",
                                                                                              "port"):
        none = ("0",) if action.dest in ("tokens", "samples", "port", "max_length", "lora_r", "save_steps") else ()
        return tuple(text for text in NUMBERS if (action.dest, text) != ("max_steps", "-1")) + none
    if action.dest in train_qwen.FLAGS:
        return ("", "yes", "2", "\x1b[2J")
    if action.choices:
        return ("", "mail", "\x1b[2J")
    if action.dest == "name":
        return NAMES
    if action.dest in FREE:
        return TEXTS
    if action.dest == "prompt":
        return ("", "  ", "x" * 8001)
    if action.dest == "data":
        return ("", "x", "=", "no_such_knob=1", "env_name=../x", "\x1b[2J=1")
    if action.dest in ("inventory", "output"):
        return PATHS
    return ("", "a\nb", "\x1b[2J") if action.dest in ("host", "hosts") else ()


def cases() -> list[tuple[str, list[str]]]:
    """(what is tried, the command line) of each option and each of its bad values."""
    found = []
    for leaf in leaves():
        words = leaf.prog.split()[1:]
        needed = {"hosts": ["no-such-host"], "host": ["no-such-host"], "name": ["kept"]}
        given = [word for action in leaf._actions if not action.option_strings and action.required
                 for word in needed[action.dest]]
        source = ["--dataset_name", "a/b"] if words == ["train"] else []
        for action in leaf._actions:
            for value in bad(action):
                option = action.option_strings[0] if action.option_strings else ""
                if option:
                    line = [*words, *given, *source, f"{option}={value}"]
                else:
                    line = [*words, value, *given[1:], *source]
                found.append((f"{leaf.prog} {option or action.dest}={value[:20]!r}", line))
    return found


CASES = cases()


def test_every_option_is_tried() -> None:
    """An option of no kind above would be passed over in silence."""
    plain = {"help", "json", "quiet", "verbose", "merged", "dry", "keep_runs", "keep_conda", "yes"}
    for leaf in leaves():
        assert [action.dest for action in leaf._actions if not bad(action) and action.dest not in plain] == []
    assert len(CASES) > 300


def test_each_bad_value_is_one_line_and_no_host_is_dialled(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    state = tmp_path / "state"
    monkeypatch.setenv("XDG_STATE_HOME", str(state))
    monkeypatch.chdir(tmp_path)
    record.keep(Record("kept", record.new_id(), "no-such-host", str(tmp_path / "nowhere.yml"), "/r",
                       "2026-11-29T13:00:00+00:00"))
    before = sorted(tmp_path.rglob("*"))
    wrong = []
    for title, line in CASES:
        code = cli.main(line)
        printed = capsys.readouterr()
        one = len(printed.err.splitlines()) == 1 and "Traceback" not in printed.err and len(printed.err) < 2500
        if code != exits.FAILED or not one or printed.out or "\x1b" in printed.err:
            wrong.append((title, code, printed.out[:200], printed.err[:300]))
    assert not wrong, "\n".join(map(str, wrong))
    assert sorted(tmp_path.rglob("*")) == before
