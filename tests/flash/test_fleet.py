"""Who builds: one host of many, another where it fails, none twice. Threads stand for pyinfra's greenlets."""

from __future__ import annotations

import fcntl
import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from qwen_rig.deploy import watched
from qwen_rig.deploy.flash_attn import fleet as _fleet
from qwen_rig.deploy.flash_attn.fleet import Built, build_once
from qwen_rig.deploy.flash_attn.plan import AttentionPayload, BuildSpec, Here
from qwen_rig.deploy.planning import make_plan
from qwen_rig.domain import Domain
from qwen_rig.errors import RigError
from qwen_rig.flash import cache
from qwen_rig.flash.key import Key
from qwen_rig.plan import Action, Plan, Step
from qwen_rig.run import adapter
from qwen_rig.run.run import Run
from tests import HANG_S, until

KEY = Key("flash-attn", "2.8.3", "2.8", "12.8", True, "3.10", "2.35", ("90", "120"))
NAMES = [f"lab-{number}" for number in range(1, 9)]
LAB = Domain("lab")


class Fleet:
    """Hosts that all want the same wheel; `fails` says what goes wrong on which, each only at its build."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.built, self.at_work = folder, [], 0  # type: tuple[Path, list[str], int]
        self.fails: dict[str, Callable[[], Built]] = {}
        self.state: Any = SimpleNamespace(inventory=self)
        self.next_run()
        self.hosts = {name: SimpleNamespace(name=name, data=SimpleNamespace(get={"ssh_hostname": name}.get),
                                            state=self.state) for name in NAMES}

    def next_run(self) -> None:
        self.run = Run(make_plan, watched)
        self.run.memory.domains.update(dict.fromkeys(NAMES, LAB))
        adapter.attach(self.state, self.run)

    def get_active_hosts(self) -> list[Any]:
        return list(self.hosts.values())

    def build(self, name: str) -> Built:
        self.built.append(name)
        self.at_work += 1
        assert self.at_work == 1, "two at once"
        try:
            time.sleep(0.05)
            if name in self.fails:
                return self.fails[name]()
            wheel = self.folder / name / "flash_attn-2.8.3-cp310-cp310-linux_x86_64.whl"
            wheel.parent.mkdir(exist_ok=True)
            wheel.write_bytes(name.encode() * 100)
            return Built(wheel, {"minutes": 18})
        finally:
            self.at_work -= 1

    def once(self, name: str, leader_failed: str = "next", key: Key = KEY, own: tuple[str, ...] = (),
             but: tuple[str, ...] = (), domain: Domain = LAB) -> Built:
        return build_once(self.hosts[name], domain, key, lambda: self.build(name),  # type: ignore[arg-type]
                          leader_failed, own, but)

    def all(self, leader_failed: str = "next", parallel: int = 8) -> dict[str, Built]:
        with ThreadPoolExecutor(parallel) as pool:
            jobs = {name: pool.submit(self.once, name, leader_failed) for name in NAMES}
            return {name: job.result(HANG_S) for name, job in jobs.items()}


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fleet:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(_fleet, "ASK_S", 0.05)
    return Fleet(tmp_path)


def plan(able: bool) -> Plan:
    """A plan that comes to a build, or can't."""
    build = BuildSpec("build", "", None, KEY, (), True, Here((), 0, 1, "") if able else None)
    made = AttentionPayload("flash-attn", None, True, (), (build,), (), "")
    return Plan("", "", (Step("", "", "", Action.ADD, "", payload=made),))


def told(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What hosts say from now on; and they wait for each other without end."""
    said: list[str] = []
    monkeypatch.setattr(fleet.run.report, "progress", lambda host, what: said.append(what))
    monkeypatch.setattr(_fleet, "GRACE_S", HANG_S)
    return said


@pytest.mark.parametrize("parallel", [8, 2, 1])
def test_one_builds_and_seven_get_its_wheel(fleet: Fleet, monkeypatch: pytest.MonkeyPatch, parallel: int) -> None:
    got = fleet.all(parallel=parallel)
    assert len(fleet.built) == 1 and {made.host for made in got.values()} == set(fleet.built)
    assert len({made.wheel for made in got.values()}) == 1 and all(m.record["minutes"] == 18 for m in got.values())
    fleet.next_run()
    assert all(made.wheel for made in fleet.all().values()) and len(fleet.built) == 1, "a second run builds none"


def test_a_wheel_that_was_tried_and_found_wanting_is_no_reason_not_to_build(fleet: Fleet) -> None:
    first = fleet.once("lab-1")
    assert first.wheel is not None
    second = fleet.once("lab-2", but=(cache.sha256_of(first.wheel),))
    assert fleet.built == ["lab-1", "lab-2"] and second.wheel != first.wheel
    assert fleet.once("lab-3").wheel == second.wheel and len(fleet.built) == 2


def crash() -> Built:
    raise KeyboardInterrupt


@pytest.mark.parametrize("fails", [lambda: Built(None, why="nvcc died"), lambda: refuse("the wheel can't be brought")])
def test_where_the_leader_fails_the_next_one_builds(fleet: Fleet, fails: Callable[[], Built]) -> None:
    fleet.fails = {"lab-1": fails}
    first = fleet.once("lab-1")
    assert first.wheel is None and first.why in ("nvcc died", "the wheel can't be brought")
    others = {name: fleet.once(name) for name in NAMES[1:]}
    assert fleet.built == ["lab-1", "lab-2"] and {made.host for made in others.values()} == {"lab-2"}


def refuse(why: str) -> Built:
    raise RigError(why)


def test_where_all_wait_for_a_leader_that_fails_one_of_them_goes_on(fleet: Fleet) -> None:
    fleet.fails = {name: lambda: Built(None, why="nvcc died") for name in NAMES[:2]}
    got = fleet.all()
    failed = [name for name in fleet.built if name in fleet.fails]
    assert len(fleet.built) == len(set(fleet.built)) == len(failed) + 1
    assert [name for name, made in got.items() if not made.wheel] == sorted(failed)


def test_by_setting_nobody_else_tries(fleet: Fleet) -> None:
    fleet.fails = {name: lambda: Built(None, {"last": ["signal 11"]}, "nvcc died") for name in NAMES}
    got = fleet.all("sdpa")
    assert len(fleet.built) == 1 and not any(made.wheel for made in got.values())
    others = [made.why for name, made in got.items() if name not in fleet.built]
    assert all(f"failed on {fleet.built[0]}: nvcc died; no other host tries" in why for why in others)
    assert all(made.record["last"] == ["signal 11"] for made in got.values()), "each host's record tells how it ended"


def test_a_build_that_fails_everywhere_ends_after_the_third_host(fleet: Fleet) -> None:
    fleet.fails = {name: lambda: Built(None, why="nvcc died") for name in NAMES}
    assert not any(made.wheel for made in fleet.all().values()) and len(fleet.built) == 3


def test_a_host_that_is_refused_the_build_says_nothing_about_the_others(fleet: Fleet) -> None:
    fleet.fails = {"lab-1": lambda: Built(None, why="no nvcc", refused=True)}
    assert fleet.once("lab-1", "sdpa").why == "no nvcc"
    assert fleet.once("lab-2", "sdpa").host == "lab-2"


def test_a_leader_that_is_killed_lets_the_others_go_on(fleet: Fleet) -> None:
    fleet.fails = {"lab-1": crash}
    with pytest.raises(KeyboardInterrupt):
        fleet.once("lab-1")
    assert fleet.once("lab-2").host == "lab-2"


def test_after_a_broken_off_run_the_host_that_was_building_comes_first(
        fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    fleet.fails = {"lab-7": crash}
    with pytest.raises(KeyboardInterrupt):
        fleet.once("lab-7")
    fleet.fails.clear()
    fleet.next_run()
    said = told(fleet, monkeypatch)
    with ThreadPoolExecutor(8) as pool:
        early = [pool.submit(fleet.once, name) for name in NAMES[:6]]
        until(lambda: len(said) == 6, lambda: said)
        assert fleet.built == ["lab-7"], "nobody has begun: lab-7 is waited for"
        late = pool.submit(fleet.once, "lab-7").result(HANG_S)
        assert late.host == "lab-7" and {job.result(HANG_S).host for job in early} == {"lab-7"}
    assert fleet.built == ["lab-7", "lab-7"]


def test_a_host_that_was_building_and_does_not_come_back_is_not_waited_for_without_end(
        fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    fleet.fails = {"lab-7": crash}
    with pytest.raises(KeyboardInterrupt):
        fleet.once("lab-7")
    fleet.next_run()
    monkeypatch.setattr(_fleet, "GRACE_S", 0.3)
    assert fleet.once("lab-1").host == "lab-1"


def test_another_run_on_this_machine_is_waited_for_and_its_wheel_used(
        fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    said = told(fleet, monkeypatch)
    folder = cache.folder(LAB) / KEY.name
    folder.mkdir(parents=True)
    with (folder / "lock").open("w") as lock, ThreadPoolExecutor(1) as pool:
        fcntl.flock(lock, fcntl.LOCK_EX)
        waiting = pool.submit(fleet.once, "lab-1")
        until(lambda: said)
        assert "another run on this machine builds the same" in said[0] and not fleet.built
        wheel = fleet.folder / "theirs-1-py3-none-any.whl"
        wheel.write_bytes(b"theirs")
        cache.keep(LAB, KEY, wheel, {"host": "elsewhere"})
        fcntl.flock(lock, fcntl.LOCK_UN)
        made = waiting.result(HANG_S)
    assert made.host == "elsewhere" and made.wheel and made.wheel.read_bytes() == b"theirs" and not fleet.built


def test_a_cache_that_takes_nothing_still_serves_the_host_that_built(
        fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")
    monkeypatch.setattr(cache, "keep", full)
    made = fleet.once("lab-1")
    assert made.wheel and made.wheel.is_file() and made.record["host"] == "lab-1"


def test_a_wheel_with_this_hosts_own_architectures_will_do(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    assert fleet.once("lab-1", key=replace(KEY, archs=("90",))).host == "lab-1"
    fleet.next_run()
    assert fleet.once("lab-2", own=("90",)).host == "lab-1", "the fleet has got an sm_120 since; lab-2 has none"
    assert fleet.once("lab-3", own=("120",)).host == "lab-3"
    assert json.loads((cache.folder(LAB) / KEY.name / "record.json").read_text())["key"]["archs"] == ["90", "120"]


def test_nobody_is_left_waiting_when_a_thread_of_many_dies(fleet: Fleet) -> None:
    fleet.fails = {name: crash for name in NAMES[:2]}
    with ThreadPoolExecutor(8) as pool:
        jobs = [pool.submit(fleet.once, name) for name in NAMES]
        ends = [job.exception(HANG_S) for job in jobs]
    assert threading.active_count() < 20 and all(ends[index] is None for index in range(2, 8))


def test_a_host_that_cannot_build_waits_for_those_that_can(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    fleet.run.report.plans.update({"lab-1": plan(False), "lab-2": plan(True), "lab-3": plan(True)})
    assert _fleet.builders(fleet.hosts["lab-1"], LAB) == {"lab-2", "lab-3"}  # type: ignore[arg-type]

    said = told(fleet, monkeypatch)

    def work(name: str) -> Built:
        until(lambda: said)  # it comes later
        with _fleet.taking_part(fleet.hosts[name], LAB, [KEY]):  # type: ignore[arg-type]
            return fleet.once(name)

    fleet.fails = {"lab-2": lambda: Built(None, why="nvcc died")}
    with ThreadPoolExecutor(3) as pool:
        waits = pool.submit(_fleet.of_others, fleet.hosts["lab-1"], LAB,  # type: ignore[arg-type]
                            replace(KEY, archs=("120",), glibc="2.39"))
        others = [pool.submit(work, name) for name in ("lab-2", "lab-3")]
        assert others[1].result(HANG_S).host == "lab-3"
        made = waits.result(HANG_S)
    assert made.wheel and made.host == "lab-3" and fleet.built.count("lab-1") == 0


def test_a_host_that_cannot_build_does_not_wait_for_nobody(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted, host = KEY, fleet.hosts["lab-1"]
    assert _fleet.of_others(host, LAB, wanted).why == "no host of this run that shares with it has built it"  # type: ignore[arg-type]
    fleet.run.report.plans.update({"lab-2": plan(True)})
    monkeypatch.setattr(_fleet, "GRACE_S", 0.2)
    assert not _fleet.of_others(host, LAB, wanted).wheel, "lab-2 never comes"  # type: ignore[arg-type]
    with _fleet.taking_part(fleet.hosts["lab-3"], LAB, [replace(KEY, torch="2.9")]):  # type: ignore[arg-type]
        assert not _fleet.of_others(host, LAB, wanted).wheel, "lab-3 builds what serves nobody here"  # type: ignore[arg-type]


@pytest.mark.parametrize("ends", ["past", "failed"])
def test_where_hosts_go_ahead_one_that_cannot_build_waits_for_one_that_is_slow(
        fleet: Fleet, monkeypatch: pytest.MonkeyPatch, ends: str) -> None:
    fleet.run.report.plans.update({"lab-1": plan(False), "lab-2": plan(True)})
    fleet.run.report.ahead = True
    monkeypatch.setattr(_fleet, "GRACE_S", 0.0)
    with ThreadPoolExecutor(1) as pool:
        waits = pool.submit(_fleet.of_others, fleet.hosts["lab-1"], LAB, KEY)  # type: ignore[arg-type]
        time.sleep(0.4)
        assert not waits.done(), "lab-2 is at an earlier step"
        if ends == "past":
            fleet.run.past["lab-2"].add("flash_attn")
        else:
            monkeypatch.setattr(_fleet.adapter, "active", lambda state: [fleet.hosts["lab-1"]])
        assert not waits.result(HANG_S).wheel
