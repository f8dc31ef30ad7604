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
])
def test_bad_input_is_one_line(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code = cli.main(arguments)
    except SystemExit as ended:
        code = int(ended.code or 0)
    told = capsys.readouterr()
    assert code == exits.FAILED and said in told.err and told.out == ""
    assert len(told.err.splitlines()) == 1, told.err


def test_the_gravest_status_counts() -> None:
    assert exits.worst([]) == exits.OK
    assert exits.worst([exits.CHANGES, exits.UNREACHABLE]) == exits.UNREACHABLE
    assert exits.worst([exits.UNREACHABLE, exits.VERIFICATION, exits.FAILED]) == exits.FAILED
