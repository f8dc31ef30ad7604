"""The names of 0.1.0 that are read for one more release: three knobs, one command."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pyinfra.api import Inventory, State

from qwen_rig import cli, knobs
from qwen_rig.cli import certify
from qwen_rig.errors import RigError
from qwen_rig.lab import load_hosts
from qwen_rig.run import adapter, beforehand


def read(**data: Any) -> tuple[str, bool, int, int]:
    found = knobs.read(data, "host a")
    return found.verification, found.verification_gpu, found.timeout_verification, found.timeout_certify


def test_an_old_name_sets_the_knobs_that_it_has_become() -> None:
    assert set(knobs.OLD).isdisjoint(knobs.NAMES) and {new for row in knobs.OLD.values() for new in row} <= knobs.NAMES
    assert read() == ("auto", True, 900, 900)
    assert read(verify="never", verify_gpu=False, timeout_verify=60) == ("never", False, 60, 60)
    assert read(verify="never", verification="always") == ("always", True, 900, 900)
    assert read(timeout_verify=60, timeout_certify=120) == ("auto", True, 60, 120)
    with pytest.raises(RigError, match="verification can't be 'perhaps' · host a"):
        read(verify="perhaps")


def test_an_old_name_is_a_knob_on_the_command_line() -> None:
    given = dict(map(knobs.pair, ("verify=never", "verify_gpu=False", "timeout_verify=60")))
    assert given == {"verify": "never", "verify_gpu": False, "timeout_verify": 60}
    assert read(**given) == ("never", False, 60, 60)
    for text, said in (("verify=perhaps", "verification can't be 'perhaps' · --data"),
                       ("verify_gpu=1", "verification_gpu must be true or false"),
                       ("verificaton=never", "there is no knob 'verificaton' · --data · did you mean verification")):
        with pytest.raises(RigError, match=said):
            knobs.pair(text)


def hosts(tmp_path: Path, text: str) -> list[tuple[str, dict[str, Any]]]:
    path = tmp_path / "lab.yml"
    path.write_text(text)
    return load_hosts(path)


def test_in_lab_yml_a_hosts_own_stands_above_the_defaults_by_either_name(tmp_path: Path) -> None:
    told = hosts(tmp_path, """
defaults: {verify: never, timeout_certify: 120, verify_gpu: false}
hosts:
  lab-01:
  lab-02: {verification: always}
  lab-03: {verify: auto, timeout_verify: 60, verification_gpu: true}
""")
    assert [read(**{key: value for key, value in data.items() if key in knobs.NAMES | set(knobs.OLD)})
            for _, data in told] == [
        ("never", False, 900, 120), ("always", False, 900, 120), ("auto", True, 60, 60)]
    with pytest.raises(RigError, match=r"verification can't be 'perhaps' · .*lab.yml:2"):
        hosts(tmp_path, "hosts:\n  lab-01: {verify: perhaps}\n")


def state(all_: dict[str, Any], host: dict[str, Any], group: dict[str, Any], data: dict[str, Any]) -> State:
    return State(inventory=Inventory(([("lab-01", host), "lab-02"], all_), override_data=data,
                                     lab=(["lab-01", "lab-02"], group)))


@pytest.mark.parametrize(("host", "group", "data", "want"), [
    ({}, {}, {}, "auto"),
    ({}, {}, {"verify": "never"}, "never"),
    ({"verify": "never"}, {}, {}, "never"),
    ({}, {"verify": "never"}, {}, "never"),
    ({"verification": "always"}, {"verify": "never"}, {}, "always"),
    ({"verify": "always"}, {"verification": "never"}, {}, "always"),
    ({"verification": "always"}, {}, {"verify": "never"}, "never"),
    ({"verify": "always", "verification": "never"}, {}, {}, "never"),
])
def test_the_stronger_source_wins_by_either_name(host: dict[str, Any], group: dict[str, Any], data: dict[str, Any],
                                                 want: str) -> None:
    made = state(dict(knobs.defaults()), host, group, data).inventory.get_host("lab-01")
    assert beforehand.knobs(made).verification == want
    merged: dict[str, Any] = {}
    for each in adapter.data_by_source(made):
        merged.update(each)
    assert merged == adapter.data(made)


def test_old_names_are_told_in_one_line_a_run(monkeypatch: pytest.MonkeyPatch,
                                              capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(adapter, "taking_part", lambda state: list(state.inventory))
    beforehand.refuse_bad_knobs(state(dict(knobs.defaults()), {"timeout_verify": 60}, {"verify": "never"}, {}),
                                lambda knobs, where: None)
    told = capsys.readouterr()
    assert told.out == "" and told.err == (
        "qwen-rig: knobs have new names: verify is now verification, timeout_verify is now timeout_verification and "
        "timeout_certify · the old ones are read for this release\n")
    beforehand.refuse_bad_knobs(state(dict(knobs.defaults()), {}, {}, {"verification": "never"}),
                                lambda knobs, where: None)
    assert capsys.readouterr() == ("", "")


def test_no_old_name_is_taken_for_a_misspelt_one() -> None:
    knobs.refuse_misspelt(knobs.OLD, "lab")
    with pytest.raises(RigError, match="there is no knob 'verificaton' · lab · did you mean verification"):
        knobs.refuse_misspelt(["verificaton"], "lab")


def test_rig_verify_says_its_new_name_and_does_what_certify_does(monkeypatch: pytest.MonkeyPatch,
                                                                 capsys: pytest.CaptureFixture[str]) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(certify, "run", lambda options: asked.append(options) or 4)
    assert cli.main(["verify", "--limit", "lab-01"]) == 4 and asked[0].limit == ["lab-01"]
    told = capsys.readouterr()
    assert told.out == "" and told.err == "qwen-rig: verify is now certify: qwen-rig certify\n"
    assert cli.main(["certify", "--limit", "lab-01"]) == 4 and capsys.readouterr().err == ""
