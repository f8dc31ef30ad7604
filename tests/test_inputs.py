"""Bad input, made from the types of what is read, thrown at the real readers (campaign/): the same cases each time."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from campaign import doors, inputs
from campaign.kinds import KINDS, Kind
from campaign.tally import Tally
from qwen_rig.errors import RigError

THROUGH = 4


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_no_reader_takes_what_it_should_not(kind: Kind, tmp_path: Path) -> None:
    score = Tally(0)
    with inputs.nobody_is_dialled():
        inputs.throw_kind(score, kind, max(2, kind.weight * 3 // 5), None, tmp_path)
    assert score.cases[kind.name] and not score.findings, score.findings[:3]


def test_a_campaign_counts_and_its_seed_brings_the_same_cases(tmp_path: Path) -> None:
    """Also of what is wrong: a reader that takes everything, one that stumbles, one that says too little."""
    def mute(_: object, __: Path) -> None:
        raise RigError("no")

    kind, seen = next(kind for kind in KINDS if kind.name == "keys of lab.yml"), []
    for read in (lambda *_: None, lambda *_: 1 / 0, mute):
        score = Tally(7)
        for _ in range(2):
            inputs.throw_kind(score, Kind(kind.name, kind.values, read, 1), 5, 7, tmp_path)
        seen.append({each.counted for each in score.findings})
        cases = [each.case for each in score.findings]
        assert cases[:len(cases) // 2] == cases[len(cases) // 2:] and len(cases) >= 4
    assert seen == [{"silently taken"}, {"tracebacks"}, {"unclear"}]
    assert doors.case(Random(3)) == doors.case(Random(3))


def test_a_sample_through_the_doors() -> None:
    score = Tally(20261129)
    doors.throw(score, THROUGH, lambda: True)
    assert sum(score.cases.values()) == THROUGH and not score.findings, score.findings[:3]
