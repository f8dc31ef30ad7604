"""The door's own words: bad input is one line, status 1, and no host is touched."""

from __future__ import annotations

import pytest

from qwen_rig import cli, exits


@pytest.mark.parametrize(("arguments", "said"), [
    (["plann"], "there is no 'plann' · did you mean plan?"),
    (["zzz"], "invalid choice: 'zzz'"),
    (["plan", "--data", "stack=guide-literal"], "never published for CUDA 12.8"),
    (["plan", "--data", "stack"], "is no KNOB=VALUE"),
    (["plan", "--data", "stak=guide"], "there is no knob 'stak' · --data · did you mean stack?"),
    (["plan", "--data", "colour=blue"], "there is no knob 'colour' · --data · see group_data/all.py"),
    (["plan", "--data", "nvidia_driver_branch=new"], "whole number"),
    (["plan", "-i", "nowhere.yml"], "no such inventory"),
    (["fits", "--card", "5090", "-i", "nowhere.yml"], "-i is said of hosts, and no host is named"),
    (["doctor", "--data", "stack=guide"], "--data stack is said of hosts, and no host is named"),
])
def test_bad_input_is_one_line(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code = cli.main(arguments)
    except SystemExit as ended:
        code = int(ended.code or 0)
    told = capsys.readouterr()
    assert code == exits.FAILED and said in told.err and told.out == ""
    assert len(told.err.splitlines()) == 1, told.err


WORDS = {"explain": ["h", "env"], "bundle": ["folder"], "remove": ["h"], "fits": ["--card", "5090"], "train":
         ["h", "--model_name_or_path", "Qwen/Qwen3-0.6B", "--dataset_name", "a/b"]}  # what a verb wants besides


def test_each_verb_refuses_a_knob_that_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    verbs = next(action for action in cli.parser()._actions if isinstance(action.choices, dict)).choices
    assert isinstance(verbs, dict)
    taking = [verb for verb, its in verbs.items() if "--data" in its._option_string_actions]
    assert len(taking) >= 12
    for verb in taking:
        assert cli.main([verb, *WORDS.get(verb, []), "--data", "stak=guide"]) == exits.FAILED, verb
        told = capsys.readouterr()
        assert "there is no knob 'stak' · --data · did you mean stack?" in told.err and not told.out, (verb, told)


def test_the_gravest_status_counts() -> None:
    assert exits.worst([]) == exits.OK
    assert exits.worst([exits.CHANGES, exits.UNREACHABLE]) == exits.UNREACHABLE
    assert exits.worst([exits.UNREACHABLE, exits.VERIFICATION, exits.FAILED]) == exits.FAILED
