"""Mirrors on real hosts: the fast and honest one is chosen, and one that lies is refused and the next one used."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import yaml

from .conftest import Lab, Run

pytestmark = pytest.mark.testbed

# What each host may choose from. Its default index is the client's own, which no testbed host can reach.
MIRRORS = {
    "choice": {"trickle": "slow", "liar": "lying", "honest": ""},
    "deceived": {"half-liar": "lying-six", "trickle": "slow"},  # the measured file is sound, another one isn't
}


@dataclass
class Outcome:
    """Both hosts after one run, and what the services were asked."""

    lab: Lab
    run: Run
    requests: list[Any]

    def asked(self, host: str, mirror: str) -> set[str]:
        """The wheels that a host asked of a mirror, by project."""
        address, begin = self.lab.hosts[host].address, f"/{mirror}/pypi/files/" if mirror else "/pypi/files/"
        return {row["path"].removeprefix(begin).split("-")[0] for row in self.requests
                if row["client"] == address and row["path"].startswith(begin)}


@pytest.fixture(scope="module")
def outcome(bed: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outcome]:
    from testbed import HostSpec

    folder = tmp_path_factory.mktemp("mirrors")
    infos = bed.up([HostSpec(name, kind="container", driver="580.95.05:open") for name in MIRRORS])
    lab, base = Lab(bed, infos, folder, source_pip_index=None, verify="never"), bed.services().base
    for host, mirrors in MIRRORS.items():
        block = {name: {"pip_index": "/".join(filter(None, (base, fault, "pypi/simple"))), "source": "the testbed"}
                 for name, fault in mirrors.items()}
        (folder / f"{host}.yml").write_text(yaml.safe_dump({"mirrors": block}))
        lab.data["hosts"][host]["mirrors"] = str(folder / f"{host}.yml")
    lab.write()
    run = lab.deploy("-y")
    yield Outcome(lab, run, bed.requests())
    bed.down()


def test_the_honest_fast_mirror_is_chosen(outcome: Outcome) -> None:
    assert outcome.run.code == 0, outcome.run.stderr
    made = outcome.lab.record("choice", "env")
    assert (made["source"], made["refused"]) == ("honest", "")
    assert outcome.asked("choice", "slow") == outcome.asked("choice", "lying") == {"click"}, "measured, nothing more"
    assert {"uv", "six", "idna"} <= outcome.asked("choice", "")
    said = " ".join(outcome.run.stderr.split())
    assert "mirror liar (" in said and "is not used: its file isn't the locked one" in said


def test_other_bytes_under_a_locked_name_are_refused_and_the_next_mirror_used(outcome: Outcome) -> None:
    made = outcome.lab.record("deceived", "env")
    assert (made["source"], made["refused"]) == ("trickle", "half-liar:other bytes than the lock names;")
    assert "six" in outcome.asked("deceived", "lying-six"), "it was offered, and refused"
    assert "source half-liar refused" in " ".join(outcome.run.stderr.split())
    python = "/root/miniforge3/envs/qwen-train/bin/python"
    assert outcome.lab.on("deceived", f"{python} -c 'import six; print(six.__version__)'").strip() == "1.17.0"


def test_a_second_run_changes_nothing_and_measures_nothing(outcome: Outcome) -> None:
    counted = {name: outcome.lab.bed.execs(name) for name in outcome.lab.hosts}
    again = outcome.lab.deploy("-y")
    assert again.code == 0 and "No changes." in again.stderr, again.stderr
    assert {name: outcome.lab.bed.execs(name) - n for name, n in counted.items()} == dict.fromkeys(MIRRORS, 1)
    addresses = {info.address for info in outcome.lab.hosts.values()}
    before, after = ([row for row in rows if row["client"] in addresses]
                     for rows in (outcome.requests, outcome.lab.bed.requests()))
    assert before == after, "not a single request more"
