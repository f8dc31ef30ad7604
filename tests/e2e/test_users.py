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
SMI = "/usr/local/bin/nvidia-smi"  # goes before the driver's own
SAYS = """#!/bin/sh
case $* in *--query-gpu=*) /usr/bin/nvidia-smi "$@" | sed -E '{}' ;; *) exec /usr/bin/nvidia-smi "$@" ;; esac
"""
# A column that nobody asked for, a card without a bus id, and words for values; then a card of which nothing is told.
ODD = "1s/$/, tomorrow/; 2,$s/, [0-9A-F]+:[^,]+, [^,]+, [^,]+, .*/, [N\\/A], [Unknown Error], ERR!, None, 7/"
MUTE = ODD + "; $a 1, [GPU is lost]\\n2, None, ?"


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
    first = lab.deploy("-y", "-vvv", "--data", "_sudo=true", **secret)  # env and caches are the user's for all that
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


def test_a_host_whose_cells_are_odd_beside_two_good_ones(lab: Lab) -> None:
    """What a cell should have told is told by the bus or said to be unknown, and is no change; a GPU of which nothing
    is told is that host's card. The others match in the same runs."""
    from testbed.spec import PASSWORD

    def run(script: str, *arguments: str) -> tuple[int, str]:
        lab.bed.exec_("driven", ["sh", "-c", f"cat >{SMI}; chmod 755 {SMI}"], stdin=SAYS.format(script), check=True)
        counted = {name: lab.bed.execs(name) for name in lab.hosts}
        done = lab.deploy(*arguments, "--exclude", "mute", RIG_SUDO=PASSWORD)
        assert {lab.bed.execs(name) - counted[name] for name in ("asks", "passwordless", "driven")} == {1}
        assert "Traceback" not in done.stderr
        return done.code, " ".join(done.stderr.replace("│", " ").split())

    code, said = run(ODD, "-y")
    assert code == 0 and "No changes. asks, driven, passwordless match." in said, said
    for cell in ("memory.total of GPU 0 could not be read: nvidia-smi says [Unknown Error]", "compute_cap of GPU 0",
                 "mig.mode.current of GPU 0"):
        assert cell in said, said
    for how in (["--dry"], ["-y"]):
        code, said = run(MUTE, *how)
        assert code == 1 and "✗ driven" in said and "a GPU has fallen off the bus" in said, said
        assert "asks, passwordless match" in said, said
    lab.on("driven", f"rm {SMI}")
