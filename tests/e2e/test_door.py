"""The door, `qwen-rig`: a host from nothing to right and back through drift, repair and undo. Each exit status is
met on a real SSH host; the GPU and NVIDIA's packages are emulated, the env is the stand-in stack's.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from qwen_rig import exits

from .conftest import REPO, Lab, Run

pytestmark = pytest.mark.testbed
ENVS = "/root/miniforge3/envs"
SITE = f"{ENVS}/qwen-train/lib/python3.*/site-packages"
TREE = f"cd {ENVS} && find qwen-train/ -type f ! -name '*.pyc' -exec sha256sum {{}} + | sort"
OUTSIDE = """dpkg-query -W -f '${Package} ${Version} ${Status}\\n'
find /etc -xdev -type f ! -name ld.so.cache -exec sha256sum {} + | sort
find /root -path /root/miniforge3/envs -prune -o -path /root/.cache -prune -o -type f ! -name '*.pyc' -print | sort"""
# A stand-in's mess: what a hand leaves of the packages that stand for torch (packaging), transformers (idna), the rest.
MESS = f"""cd {ENVS} && cp -aL qwen-train mess && rm -rf mess/.rig qwen-train .qwen-train* && mv mess qwen-train
cd {SITE} && mv packaging-25.0.dist-info packaging-24.0.dist-info && mv idna-3.10.dist-info idna-3.4.dist-info
sed -i 's/^Version: .*/Version: 24.0/' packaging-24.0.dist-info/METADATA
sed -i 's/^Version: .*/Version: 3.4/' idna-3.4.dist-info/METADATA
rm -r six.py six-*.dist-info tabulate*"""


@pytest.fixture(scope="module")
def lab(bed: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    from testbed import HostSpec

    yield Lab(bed, bed.up([HostSpec("door-01", driver="580.95.05:open", nouveau=False), HostSpec("door-02")]),
              tmp_path_factory.mktemp("door"))
    bed.down()


def _outcome(run: Run, outcome: str) -> dict[str, Any]:
    """The one host of a run's document, which is of its schema and has that outcome."""
    document = json.loads(run.stdout)
    jsonschema.validate(document, json.loads((REPO / "docs" / "run.schema.json").read_text()))
    (host,) = document["hosts"]
    assert host["outcome"] == outcome and document["status"] == run.code, document
    found: dict[str, Any] = host
    return found


@pytest.fixture(scope="module")
def applied(lab: Lab) -> Lab:
    """door-01, planned, saved, applied from the saved plan: all that must be shown on the way is asserted here."""
    before = lab.fingerprint("door-01")
    planned = lab.rig("plan", "--limit", "door-01", "--json", "--save", "first.json")
    assert planned.code == exits.CHANGES, planned.stderr
    document = json.loads(planned.stdout)
    jsonschema.validate(document, json.loads((REPO / "docs" / "plan.schema.json").read_text()))
    assert document == json.loads((lab.folder / "first.json").read_text())
    (host,) = document["hosts"]
    steps = {step["component"]: step for step in host["steps"]}
    assert (host["since"], host["drift"], host["seconds"]) == (None, [], None), "with no history nothing is invented"
    assert steps["driver"]["action"] == "none" and steps["env"]["bytes"] > 100_000
    assert steps["verification"]["known_after"] == "env"
    assert "+blacklist nouveau" in steps["guard"]["files"][0]["diff"]

    asked = lab.rig("apply", "--limit", "door-01")
    assert (asked.code, asked.stderr.splitlines()[-1]) == (
        exits.FAILED,
        "qwen-rig: nothing was changed: there is no terminal to ask on · --yes goes on without being asked")
    refused = lab.rig("apply", "--limit", "door-01", answer="of course")
    assert refused.code == exits.FAILED and "the answer was" in refused.stderr
    assert lab.fingerprint("door-01") == before, "nothing was changed so far"

    made = lab.rig("apply", "first.json", "--json")
    assert made.code == exits.OK, made.stderr
    came = _outcome(made, "changed")
    assert [step["component"] for step in came["steps"]][-1] == "verification" and "attention by SDPA" in came["detail"]
    assert "added Env qwen-train" in made.stderr and "Traceback" not in made.stderr
    return lab


def test_a_saved_plan_is_applied_once_and_refused_after_the_host_has_changed(applied: Lab) -> None:
    before = applied.fingerprint("door-01")
    again = applied.rig("apply", "first.json")
    assert again.code == exits.FAILED
    assert "it has changed since the plan was saved" in again.stderr and "conda /root/miniforge3" in again.stderr
    assert applied.fingerprint("door-01") == before

    assert applied.rig("plan", "--limit", "door-01", "--save", "right.json").code == exits.OK
    gcc = applied.on("door-01", "f=$(command -v gcc) && mv $f $f.away && echo $f").strip()
    more = applied.rig("apply", "right.json")
    applied.on("door-01", f"mv {gcc}.away {gcc}")
    assert more.code == exits.FAILED, "no more is done than was saved"
    assert "step C and C++ compiler was: nothing to do, is now: add" in " ".join(more.stderr.split())
    assert applied.fingerprint("door-01") == before


def test_nothing_to_do_is_0_in_one_exec_and_the_guides_door_says_the_same(applied: Lab) -> None:
    counted = applied.bed.execs("door-01")
    planned = applied.rig("plan", "--limit", "door-01")
    assert planned.code == exits.OK and "No changes. door-01 matches." in planned.stdout and planned.stderr == ""
    assert applied.bed.execs("door-01") - counted == 1
    done = applied.rig("apply", "--limit", "door-01")
    assert done.code == exits.OK and "No changes. door-01 matches." in done.stderr, "and nothing is asked"
    assert applied.bed.execs("door-01") - counted == 2
    assert "No changes. door-01 matches." in applied.deploy("--dry", "--limit", "door-01").stderr


def test_explain_prints_facts_rules_and_decision_with_their_sources(applied: Lab) -> None:
    told = applied.rig("explain", "door-01", "driver")
    assert told.code == exits.OK
    for words in ("NVIDIA GeForce RTX 5090 (10de:2b85), compute capability 12.0", "facts.driver.NvidiaDriver",
                  "sm_120 with CUDA 12.8: driver ≥ 570.26", "NVIDIA CUDA release notes", "sm_120 runs on open kernel",
                  "580.95.05 open", "adopted: sm_120 needs ≥ 570.26, open modules"):
        assert words in told.stdout, told.stdout


def test_a_mess_is_named_repaired_and_undo_brings_it_back(applied: Lab) -> None:
    """Drift, diagnosis, repair, undo; and at the end forward again, with nothing built twice."""
    applied.on("door-01", MESS)
    mess, outside = applied.on("door-01", TREE), applied.on("door-01", OUTSIDE)
    differs = applied.rig("diff", "--limit", "door-01")
    assert differs.code == exits.CHANGES and "packaging 25.0 → 24.0" in " ".join(differs.stdout.split()), differs
    planned = json.loads(applied.rig("plan", "--limit", "door-01", "--json").stdout)["hosts"][0]
    assert {"env link", "idna", "packaging", "six", "tabulate"} <= {row["what"] for row in planned["drift"]}
    env = next(step for step in planned["steps"] if step["component"] == "env")
    assert env["problems"] == [
        "idna 3.4 is older than the lock's 3.10", "packaging 24.0 is older than the lock's 25.0",
        "six is missing; the lock has 1.17.0", "tabulate is missing; the lock has 0.9.0"]
    assert env["seconds"] is not None, "the first run was timed"

    assert applied.rig("apply", "--limit", "door-01", answer="yes").code == exits.OK
    assert applied.rig("plan", "--limit", "door-01").code == exits.OK
    kept = applied.on("door-01", f"readlink {ENVS}/qwen-train").strip()
    gone_back = applied.rig("undo", "--limit", "door-01", "--yes", "--json")
    _outcome(gone_back, "changed")
    assert gone_back.code == exits.OK and "idna 3.4 is older" in gone_back.stderr, "the plan says what it sees"
    assert applied.on("door-01", TREE) == mess, "the mess is back, byte for byte"
    assert applied.on("door-01", OUTSIDE) == outside, "and nothing else has changed"
    assert applied.on("door-01", f"ls -A {ENVS}").split() == [kept, ".qwen-train.lock", "qwen-train"]
    assert applied.rig("undo", "--limit", "door-01", "--yes").code == exits.FAILED, "there is nothing before the mess"

    requests = len(applied.bed.requests())
    again = applied.rig("apply", "--limit", "door-01", "--yes")
    assert again.code == exits.OK and "is complete: tested again, then linked" in " ".join(again.stderr.split())
    fetched = [row["path"] for row in applied.bed.requests()[requests:] if row["path"].endswith((".whl", ".conda"))]
    assert not fetched, "nothing is fetched or built twice"
    assert applied.rig("plan", "--limit", "door-01").code == exits.OK


def test_a_broken_import_fails_the_verification_with_4_and_is_then_mended_by_name(applied: Lab) -> None:
    """No name or size of a file tells that a package can't import; the verification finds out, the next plan knows."""
    applied.tear("door-01", f"{SITE}/attrs/__init__.py")
    before = applied.on("door-01", f"readlink {ENVS}/qwen-train")
    assert applied.rig("plan", "--limit", "door-01").code == exits.OK, "as yet it can't be seen"
    failed = applied.rig("apply", "--limit", "door-01", "--yes", "--data", "verification=always")
    assert failed.code == exits.VERIFICATION and "verification failed" in failed.stderr, failed.stderr
    planned = json.loads(applied.rig("plan", "--limit", "door-01", "--json").stdout)["hosts"][0]
    env = next(step for step in planned["steps"] if step["component"] == "env")
    assert "`from attrs import define` failed when last verified" in env["problems"][0] and "torn" in env["problems"][0]
    applied.on("door-01", f"mkdir {ENVS}/qwen-train.new")  # where the new link would be made
    torn = applied.rig("apply", "--limit", "door-01", "--yes")
    assert torn.code == exits.FAILED and "─ ✗ door-01 ─" in torn.stderr
    assert applied.on("door-01", f"readlink {ENVS}/qwen-train") == before, "never half an env"
    # Of envs whose names go on after this one's.
    others = ".qwen-train-other-cccccccccccc-1", ".qwen-train-cccccccccccc-1-cccccccccccc-2"
    applied.on("door-01", f"cd {ENVS}; rm -r qwen-train.new; mkdir .qwen-train-0123456789ab-7 {' '.join(others)}")
    assert applied.rig("apply", "--limit", "door-01", "--yes").code == exits.OK
    assert applied.on("door-01", f"readlink {ENVS}/qwen-train") != before, "built beside, the old env is kept"
    left = applied.on("door-01", f"ls -A {ENVS}").split()
    assert {before.strip(), *others} <= {*left} and ".qwen-train-0123456789ab-7" not in left, left
    applied.on("door-01", f"cd {ENVS}; rmdir {' '.join(others)}")
    assert applied.rig("plan", "--limit", "door-01").code == exits.OK


def test_unreachable_is_3_and_the_others_are_planned(applied: Lab) -> None:
    applied.bed.kill("door-02")
    planned = applied.rig("plan", "--json")
    applied.bed.boot("door-02")
    assert planned.code == exits.UNREACHABLE
    document = json.loads(planned.stdout)
    assert [host["host"] for host in document["hosts"]] == ["door-01"]
    assert [(row["host"], row["status"]) for row in document["failures"]] == [("door-02", exits.UNREACHABLE)]


def test_a_reboot_asks_for_the_hosts_name(applied: Lab) -> None:
    before = applied.fingerprint("door-02")
    refused = applied.rig("apply", "--limit", "door-02", answer="yes")
    assert refused.code == exits.FAILED and "door-02 will be rebooted. Type its name" in refused.stderr
    left_out = applied.rig("apply", "--limit", "door-02", "--yes", "--skip", "driver")
    by_knob = applied.deploy("-y", "--limit", "door-02", "--data", "skip_steps=driver")
    for said in (left_out.stderr, by_knob.stderr):
        assert "step driver is left out and not done yet, and guard, reboot, verification need it" in " ".join(
            said.replace("│", " ").split()), said
    assert (left_out.code, by_knob.code) == (exits.FAILED, 1)
    wrong = applied.deploy("--dry", "--data", "only_steps=drivr")
    assert wrong.code == 1 and "did you mean driver?" in wrong.stderr and "Connecting" not in wrong.stderr
    assert applied.fingerprint("door-02") == before


def test_the_ledger_is_the_users_alone(applied: Lab) -> None:
    kept = [path for path in (Path(applied.folder) / "state").rglob("*") if path.is_file()]
    assert kept and all(path.stat().st_mode & 0o077 == 0 for path in kept)
