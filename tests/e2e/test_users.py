"""The whole job as others than root log in: sudo with a password, sudo without one, and no sudo at all.

Driver, apt and reboot take root; conda, env and records belong to whom we log in as.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from .conftest import Lab

pytestmark = pytest.mark.testbed
ENV = "miniforge3/envs/qwen-train"


@pytest.fixture(scope="module")
def lab(bed: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    from testbed import HostSpec

    infos = bed.up([HostSpec("asks", user="pw"), HostSpec("passwordless", user="dev"),
                    HostSpec("mute", user="pw"), HostSpec("driven", user="nosudo", driver="580.95.05:open")])
    lab = Lab(bed, infos, tmp_path_factory.mktemp("users"))
    lab.data["hosts"]["asks"]["sudo_password_env"] = "RIG_SUDO"
    lab.write()
    yield lab
    bed.down()


def _left(lab: Lab) -> str:
    return lab.fingerprint("mute") + lab.on("mute", "ls -A /home/pw")


def test_first_run_then_no_change(lab: Lab) -> None:
    from testbed.spec import PASSWORD

    secret = {"RIG_SUDO": PASSWORD}
    before = _left(lab)
    first = lab.deploy("-y", "-vvv", **secret)
    assert first.code == 1, "a user whose sudo asks, with no password given, is refused"
    assert f"{PASSWORD}'" not in first.stderr and f"={PASSWORD}" not in first.stderr
    card = first.stderr[first.stderr.index("✗ mute"):]
    assert "sudo asks pw for a password" in card and "sudo_password_env" in card
    assert _left(lab) == before, "what is refused is left as it was"
    for name, user in (("asks", "pw"), ("passwordless", "dev"), ("driven", "nosudo")):
        assert lab.on(name, "nvidia-smi --query-gpu=driver_version --format=csv,noheader").strip() == "580.95.05"
        made = json.loads(lab.on(name, f"cat /home/{user}/{ENV}/.rig/verification.json"))
        assert made["overall"] in ("pass", "partial"), (name, made)
        foreign = lab.on(name, f"find /home/{user} ! -user {user} | head -3")
        assert not foreign, f"{name}: everything below the user's home is the user's: {foreign}"
    counted = {name: lab.bed.execs(name) for name in lab.hosts}
    second = lab.deploy("-y", "--exclude", "mute", **secret)
    assert second.code == 0 and "No changes. asks, driven, passwordless match." in second.stderr, second.stderr
    assert "mute" not in second.stderr.split("Results:")[1], "what is left out is not said to be right"
    assert second.results["Grand total"]["success"] == 0
    assert {lab.bed.execs(name) - counted[name] for name in ("asks", "passwordless", "driven")} == {1}


def test_a_limit_that_leaves_nobody(lab: Lab) -> None:
    refused = lab.deploy("-y", "--limit", "asks,driven", RIG_SUDO="unused")
    assert refused.code == 1 and "no host or group" in refused.stderr and "Connecting" not in refused.stderr
