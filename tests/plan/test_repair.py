"""What is wrong with an env, by name; what has changed since the last apply; what a step took before."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from qwen_rig import ledger, render
from qwen_rig.cli import _confirm
from qwen_rig.deploy.env.proof import fingerprint
from qwen_rig.deploy.flash_attn.plan import flash_spec
from qwen_rig.deploy.planning import make_plan
from qwen_rig.errors import RigError
from qwen_rig.managed import GUARD, REPOSITORY
from qwen_rig.plan import Action, Applied
from qwen_rig.plan.document import of_plan
from qwen_rig.plan.drift import outdated, snapshot
from qwen_rig.plan.env import aside_names
from qwen_rig.plan.files import managed, unified
from qwen_rig.redaction import redacted

from .states import GTX1080, RTX4090, RTX5090, bare, context, with_driver
from .test_plan import converged


def mess() -> dict[str, Any]:
    """The issue's: PyPI's torch 2.7.1 (built for CUDA 12.6) and an old transformers, put there by hand."""
    state = converged("guide")
    state["env"]["target"], state["generations"] = None, []
    state["env"]["packages"].update({"torch": "2.7.1", "transformers": "4.40.0"})
    state["env"]["torch"] = {"version": "2.7.1+cu126", "cuda": "12.6"}
    del state["env"]["packages"]["trl"]
    state["env"]["duplicates"] = ["peft"]
    return state


def test_a_mess_has_each_wrong_thing_named_and_is_built_beside() -> None:
    step = make_plan(context(mess())).step("env")
    assert step.action is Action.CHANGE and step.payload.mode == "build"
    assert step.problems[0] == (
        "torch 2.7.1+cu126 is built for CUDA 12.6, not 12.8, as a plain `pip install torch==2.7.1` brings it; it has "
        "no code for sm_120 (CUDA 12.8 is the first that can compile it), so every kernel ends in «no kernel image is "
        "available for execution on the device»")
    assert set(step.problems[1:]) == {
        "torch 2.7.1 is older than the lock's 2.8.0", "transformers 4.40.0 is older than the lock's 4.46.0",
        "trl is missing; the lock has 0.11.0",
        "peft is there twice, as a broken upgrade leaves it; the lock has 0.13.0"}


def test_on_an_older_card_the_same_build_is_wrong_but_not_blind() -> None:
    state = mess()
    state["pci_gpus"][0]["device_id"] = RTX4090
    assert "no kernel image" not in make_plan(context(state)).step("env").problems[0]


@pytest.mark.parametrize(("torch", "said"), [
    ({"version": "2.8.0+cpu", "cuda": None}, "torch 2.8.0+cpu is a CPU build: it can use no GPU"),
    (None, "torch's build can't be told: torch/version.py can't be read"),
    ({"version": "2.8.0+cu129", "cuda": "12.9"}, "torch 2.8.0+cu129 is built for CUDA 12.9, not 12.8"),
])
def test_a_wrong_build_is_told_by_its_file(torch: dict[str, Any] | None, said: str) -> None:
    state = converged("guide")
    state["env"]["torch"] = torch
    assert make_plan(context(state)).step("env").problems[0].startswith(said)


@pytest.mark.parametrize(("check", "why", "said"), [
    ("import", "ModuleNotFoundError: No module named 'rich'", "`from trl import SFTTrainer` failed when last verified: "
                                                             "ModuleNotFoundError: No module named 'rich'"),
    ("kernel", "CUDA error: no kernel image is available for execution on the device", "«no kernel image» when last"),
])
def test_what_a_standing_verification_saw_is_mended_by_an_env_beside(check: str, why: str, said: str) -> None:
    state = converged("guide")
    record = state["generations"][0]["records"]
    record["verification"] = {"fingerprint": fingerprint(context(state)), "overall": "fail",
                              "checks": [{"name": check, "status": "fail", "why": why}]}
    step = make_plan(context(state)).step("env")
    assert step.payload.mode == "build" and step.problems[0].startswith(said)
    record["verification"]["fingerprint"] = "of another env"
    assert make_plan(context(state)).step("env").action is Action.NONE, "what it said no longer holds"


def test_after_an_undo_the_newer_env_is_linked_again_and_an_older_one_never() -> None:
    state = converged("guide")
    first = state["generations"][0]["name"]
    newer = {**state["generations"][0], "name": first[:-1] + "2", "path": state["generations"][0]["path"][:-1] + "2"}
    state["generations"].append(newer)
    state["env"]["torch"] = {"version": "2.8.0+cpu", "cuda": None}
    step = make_plan(context(state)).step("env")
    assert (step.payload.generation, step.payload.kept, step.bytes) == (newer["name"], True, 0)
    state["env"]["target"] = newer["name"]
    step = make_plan(context(state)).step("env")
    assert step.payload.generation.endswith("-3") and not step.payload.kept and step.bytes > 3e9


@pytest.mark.parametrize(("gone", "python"), [
    ("its Python is gone", None), ("its Python's standard library is gone", "3.10.13"), (None, None)])
def test_an_env_in_which_nothing_runs_is_built_anew_and_never_linked_again(
        gone: str | None, python: str | None) -> None:
    state = converged("guide")
    state["env"].update(gone=gone, python=python)
    state["generations"][0]["gone"] = gone or "its Python is gone"
    step = make_plan(context(state)).step("env")
    assert (step.action, step.now) == (Action.CHANGE, gone or "no Python in it")
    assert step.payload.generation.endswith("-2") and not step.payload.kept
    state["env"] = None  # `conda remove -n qwen-train --all` takes the link too
    older = {**state["generations"][0], "name": state["generations"][0]["name"][:-1] + "3"}
    whole = {**older, "name": older["name"][:-1] + "2", "gone": None}
    state["generations"] = [state["generations"][0], whole, older]
    step = make_plan(context(state)).step("env")
    assert step.payload.generation.endswith("-4") and not step.payload.kept, "that one was left"
    state["generations"] = [state["generations"][0], whole]
    assert make_plan(context(state)).step("env").payload.kept, "it is newer, whole, and was left by an undo"


def test_a_package_whose_files_were_touched_is_mended_past_the_cache_or_built_beside() -> None:
    state = converged("guide")
    state["env"]["torn"] = {"trl": "trl/__init__.py was changed", "not-ours": "x.py is gone"}
    step = make_plan(context(state)).step("env")
    assert (step.why, step.payload.names, step.payload.afresh) == ("trl: trl/__init__.py was changed", ("trl",), True)
    state["env"]["torn"] = {"torch": "torch/cuda/__init__.py is gone"}
    step = make_plan(context(state)).step("env")
    assert step.payload.mode == "build" and step.payload.afresh and "torch/cuda/__init__.py is gone" in step.why


def test_a_build_is_never_resumed_in_the_env_that_runs() -> None:
    state = converged("guide")
    state["generations"][0].update(complete=False)  # its record was deleted, or a folder is in its place
    state["generations"][0]["records"]["env"] = None
    step = make_plan(context(state)).step("env")
    assert step.payload.generation == state["generations"][0]["name"] and step.payload.kept and step.bytes == 0
    state["env"]["packages"]["torch"] = "2.7.1"
    assert make_plan(context(state)).step("env").payload.generation.endswith("-2")


def test_an_env_of_the_users_own_goes_on_under_a_name_that_is_told_or_the_plan_refuses() -> None:
    ctx = context(mess())
    step = make_plan(ctx).step("env")
    assert step.payload.aside == "qwen-t.old" and "your own env goes on as qwen-t.old" in step.why
    state = mess()
    state["conda"][0]["envs"] = ["base", "qwen-train", "qwen-t.old"]
    assert make_plan(context(state)).step("env").payload.aside == "qwen-t.ol2"
    assert {len(name) for name in aside_names("qwen-train")} == {len("qwen-train")} and not aside_names("qwen")
    state["env"]["path"] = state["env"]["path"].replace("qwen-train", "q")
    (refused,) = make_plan(context(state, env_name="q")).refusals
    assert "no name of the same length" in refused.what and "conda rename -n q NAME" in refused.remedy


def test_drift_names_who_moved_since_the_last_apply() -> None:
    state = converged("guide")
    left = Applied("2026-11-24T10:02:00+00:00", snapshot(context(state)))
    assert not make_plan(replace(context(state), applied=left)).drift
    state = copy.deepcopy(state)
    state["driver"].update(installed_version="580.105.08")
    state["env"]["packages"]["torch"] = "2.7.1"
    state["env"]["torch"] = {"version": "2.7.1+cu126", "cuda": "12.6"}
    state["files"][next(iter(GUARD))] = None
    plan = make_plan(replace(context(state), applied=left))
    assert [(row.what, row.was, row.now) for row in plan.drift] == [
        ("NVIDIA driver, installed", "580.95.05 open", "580.105.08 open"), ("torch", "2.8.0", "2.7.1"),
        ("torch's build", "2.8.0, CUDA 12.8", "2.7.1+cu126, CUDA 12.6"), (next(iter(GUARD)), "there", "gone")]
    assert plan.since == left.when
    state["host"]["machine"] = "another"
    (row,) = make_plan(replace(context(state), applied=left)).drift
    assert "another machine" in row.now


def test_another_env_that_is_wished_for_is_no_drift() -> None:
    state = converged("guide")
    left = Applied("2026-11-20", snapshot(context(state)))
    state["env"] = None
    assert make_plan(replace(context(state, env_name="second"), applied=left)).drift == ()
    assert [row.what for row in make_plan(replace(context(state), applied=left)).drift][:1] == ["env"]



def _compilers_gone(state: dict[str, Any]) -> None:
    state["host"]["compilers"] = {"gcc": None, "g++": None}


def _kernel_failed(state: dict[str, Any]) -> None:
    state["generations"][0]["records"]["verification"]["checks"] = [
        {"name": "kernel", "status": "fail", "why": "no kernel image is available for execution on the device"}]


def _nouveau_loaded(state: dict[str, Any]) -> None:
    state["driver"]["nouveau_loaded"] = True


def _package_upgraded(state: dict[str, Any]) -> None:
    state["dpkg"]["nvidia-settings"] = "580.95.05-1"


@pytest.mark.parametrize(("change", "said"), [
    (lambda state: None, []),
    (_compilers_gone, ["step C and C++ compiler was: nothing to do, is now: add (none → gcc g++)"]),
    (_kernel_failed, ["step Env qwen-train was: nothing to do, is now: change (", "step flash-attn",
                      "step training.json", "step Verification was: nothing to do"]),
    (_nouveau_loaded, ["step Reboot was: nothing to do, is now: reboot (loaded 580.95.05 → loaded 580.95.05)"]),
    (_package_upgraded, ["its knobs, its stack's lock or its Debian packages are others, though each step is the "
                         "same"]),
])
def test_a_saved_plan_holds_only_while_its_steps_are_the_same(change: Any, said: list[str]) -> None:
    """Compared as JSON gives it back. What alters a plan need not stand in the snapshot."""
    state = converged("guide")
    saved = json.loads(json.dumps(of_plan(make_plan(context(state)), snapshot(context(state)))))
    change(state)
    lines = outdated(saved, make_plan(context(state)), snapshot(context(state)))
    assert len(lines) == len(said), lines
    assert all(line.startswith(start) for line, start in zip(lines, said, strict=True)), lines


def test_a_first_run_says_what_only_the_rebooted_host_can_tell() -> None:
    plan = make_plan(context(bare(RTX5090)))
    assert {step.component: step.known_after for step in plan.steps if step.known_after} == {
        "reboot": "reboot", "flash_attn": "env", "training": "env", "verification": "reboot"}
    unknown = make_plan(context(bare("10de:ffff")))
    assert unknown.step("training").known_after == "reboot", "an unknown card's memory is told by its driver"


def test_diffs_of_files_show_no_login() -> None:
    state = converged()
    state["texts"], state["files"][REPOSITORY] = {REPOSITORY: "URIs: https://ann:secret@mirror/x\n"}, "y"
    (change,) = managed(context(state, "standin"), {REPOSITORY: "URIs: https://mirror/x\n"})
    told = unified(change)
    assert "-URIs: https://***@mirror/x\n+URIs: https://mirror/x" in told and "secret" not in told
    assert "secret" not in str(snapshot(context(state, "standin")))
    assert redacted("see https://mirror/a@b") == "see https://mirror/a@b"


def test_minutes_come_from_recorded_runs_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    plan = make_plan(context(bare(RTX5090)))
    assert "min" not in render.cost([ledger.estimated(plan, "vm", "guide")]).split("·")[-1]
    env, driver = plan.step("env"), plan.step("driver")
    ledger.timed([(ledger.key(env, "vm", "guide"), seconds) for seconds in (100.0, 300.0, 200.0)])
    ledger.timed([(ledger.key(driver, "vm", "guide"), 100.0)])
    timed = ledger.estimated(plan, "vm", "guide")
    assert (timed.step("env").seconds, timed.step("driver").seconds, timed.step("conda").seconds) == (200, 100, None)
    assert render.cost([timed, timed]).endswith("· ~5 min and 8 steps never timed"), "hosts go side by side"
    assert ledger.estimated(plan, "container", "guide").step("env").seconds is None, "another kind of host"
    (tmp_path / "qwen-rig" / "history.jsonl").write_text("what\n[1]\n")
    assert ledger.estimated(plan, "vm", "guide").step("env").seconds is None, "a damaged history is none"


def test_the_question_is_in_proportion() -> None:
    right, reboots = make_plan(context(converged(), "standin")), make_plan(context(bare(RTX5090)))
    state = with_driver(bare(RTX5090), "580.95.05", "open")
    no_reboot = make_plan(context(state))
    assert _confirm.question([right, make_plan(context(bare(GTX1080)))]) == ("", ""), "nothing to do, nothing to ask"
    assert _confirm.question([no_reboot])[1] == "yes"
    assert _confirm.question([right, reboots])[1] == "lab-01"
    assert _confirm.question([reboots, replace(reboots, host="lab-02")])[1] == "lab-01 lab-02"
    assert _confirm.question([replace(reboots, host=f"lab-{n}") for n in range(9)])[1] == "9 hosts"
    with pytest.raises(RigError, match="no terminal"):
        _confirm.confirmed("Go back?", "yes")


def test_a_whole_env_of_somebody_elses_is_adopted_and_its_records_are_read() -> None:
    """Its link leads nowhere else: it is the folder itself, and the records lie in it."""
    state = converged("guide")
    path = "/root/miniforge3/envs/qwen-train"
    state["env"]["target"] = None
    state["generations"][0].update(name="qwen-train", path=path)
    records = state["generations"][0]["records"]
    ctx = context(state)
    records["flash_attn"]["fingerprint"] = flash_spec(ctx).fingerprint
    records["verification"]["fingerprint"] = fingerprint(ctx)
    plan = make_plan(context(state))
    assert not plan.changes and "adopted as it is" in plan.step("env").why
    state["generations"] = []
    assert {step.component for step in make_plan(context(state)).changes} == {"flash_attn", "training", "verification"}


def test_builds_of_the_same_name_in_another_folder_are_not_the_envs() -> None:
    """A second conda has a build of the same lock: its records tell nothing of the env that runs."""
    state = converged("guide")
    own = state["generations"][0]
    other = {**copy.deepcopy(own), "path": own["path"].replace("/root/", "/opt/")}
    other["records"]["verification"] = None
    other["name"] = own["name"]
    state["generations"] = [other, own]
    assert {step.action for step in make_plan(context(state)).steps} <= {Action.NONE, Action.NA}
    state["env"]["torch"] = {"version": "2.8.0+cpu", "cuda": None}
    other["name"], other["path"] = own["name"][:-1] + "7", other["path"][:-1] + "7"
    assert make_plan(context(state)).step("env").payload.generation.endswith("-2"), "there is no -7 to link here"


def test_a_broken_conda_of_ours_is_mended_where_it_is_and_anybody_elses_left_alone() -> None:
    state = converged("guide")
    state["conda"][0].update(sound=False, ours=True)
    step = make_plan(context(state)).step("conda")
    assert (step.action, step.payload.prefix) == (Action.CHANGE, state["conda"][0]["prefix"])
    assert "its envs stay" in step.why and make_plan(context(state)).step("env").action is Action.NONE
    state["conda"][0]["ours"] = False
    step = make_plan(context(state)).step("conda")
    assert (step.action, step.payload.prefix) == (Action.ADD, f"{state['conda'][0]['prefix']}-qwen-rig")
