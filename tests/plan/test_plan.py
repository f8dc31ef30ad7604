"""The planner's decisions, table-wise: state in, steps or refusal out."""

from __future__ import annotations

import json
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from qwen_rig import render
from qwen_rig.catalog.stack import Deviation
from qwen_rig.deploy.env.proof import fingerprint
from qwen_rig.deploy.flash_attn.plan import flash_spec
from qwen_rig.deploy.planning import make_plan
from qwen_rig.deploy.training.plan import settings
from qwen_rig.errors import RigError
from qwen_rig.facts import _conda
from qwen_rig.managed import REPOSITORY, guard_digests
from qwen_rig.plan import Action
from qwen_rig.plan.document import of_plan
from qwen_rig.training import LargestBatch, accelerate_text

from .states import GTX1080, REPO, RTX4090, RTX5090, V100, bare, context, with_driver


def actions(state: dict[str, Any], **set_: Any) -> dict[str, str]:
    return {step.component: step.action.value for step in make_plan(context(state, **set_)).steps}


def test_a_bare_5090_gets_everything_in_the_guides_order() -> None:
    plan = make_plan(context(bare(RTX5090)))
    assert [s.component for s in plan.steps] == [
        "repository", "driver", "guard", "reboot", "compilers", "toolkit", "conda", "env", "flash_attn", "training",
        "verification"]
    assert not plan.refusals
    assert plan.step("driver").wanted == "580 open"
    assert plan.step("driver").payload.packages == (("nvidia-driver-pinning-580",), ("nvidia-open",))
    assert plan.step("toolkit").action is Action.NA
    assert plan.step("reboot").action is Action.REBOOT
    assert plan.step("env").bytes > 3e9


@pytest.mark.parametrize(("version", "flavour", "loaded", "error", "driver", "reboot"), [
    ("580.95.05", "open", "same", None, "none", "none"),
    ("570.124.06", "open", "same", None, "none", "none"),  # a sound older branch above the floor is adopted
    ("610.57.04", "open", "same", None, "none", "none"),
    ("550.90.07", "proprietary", "same", None, "change", "reboot"),
    ("580.95.05", "proprietary", "same", "no_devices", "change", "reboot"),  # Blackwell takes open modules
    ("580.95.05", "open", "550.90.07", "driver_library_mismatch", "none", "reboot"),
    ("580.95.05", "open", None, "driver_not_loaded", "none", "reboot"),
])
def test_driver_and_reboot_on_a_5090(version: str, flavour: str, loaded: str | None, error: str | None, driver: str,
                                     reboot: str) -> None:
    found = actions(with_driver(bare(RTX5090), version, flavour, loaded, error))
    assert (found["driver"], found["reboot"]) == (driver, reboot)


def test_a_4090_keeps_its_older_proprietary_driver() -> None:
    assert actions(with_driver(bare(RTX4090), "535.183.01", "proprietary"))["driver"] == "none"


def test_a_v100_gets_proprietary_modules() -> None:
    assert make_plan(context(bare(V100))).step("driver").wanted.endswith("proprietary")


@pytest.mark.parametrize(("state", "said"), [
    (bare(), "no NVIDIA GPU"),
    (bare(GTX1080), "sm_61"),
    (bare(RTX5090, V100), "no driver serves all"),
    (bare(RTX5090, secure_boot="enabled"), "Secure Boot"),
    (bare(RTX5090, sudo="none"), "neither root nor sudo"),
    (bare(RTX5090, sudo="locked"), "asks root for a password"),
    (bare(RTX5090, os={"id": "fedora", "version_id": "44", "codename": None, "pretty": "Fedora 44"}), "Fedora 44"),
    (bare(RTX5090, disks=[{"mount": "/", "fstype": "ext4", "size_mib": 9000, "free_mib": 2000}]), "2.0 GiB free"),
    (bare(RTX5090, gpu_users=[{"pid": 7, "user": "ann", "name": "python"}]), "in use by python (pid 7, ann)"),
    (with_driver(bare(RTX5090, gpu_users=[{"pid": 7, "user": "ann", "name": "python"}]), "580.95.05", "open",
                 "570.124.06", "driver_library_mismatch"), "(pid 7, ann), and the host must be rebooted"),
    (with_driver(bare(RTX5090, kind="container"), "550.90.07", "proprietary"), "can't serve cu128 on sm_120"),
    (with_driver(bare(RTX5090, kind="container"), "550.90.07", "proprietary", error="no_devices"), "can't serve cu128"),
    (bare(RTX5090, kind="container"), "doesn't answer"),
    (bare(RTX5090, kind="unknown"), "whether this host is a container isn't known"),
])
def test_refusals(state: dict[str, Any], said: str) -> None:
    plan = make_plan(context(state))
    assert any(said in refusal.what for refusal in plan.refusals), plan.refusals
    assert all(refusal.remedy for refusal in plan.refusals)


def test_a_driver_that_could_not_serve_is_never_installed() -> None:
    (refusal,) = make_plan(context(bare(RTX5090), nvidia_driver_branch=550)).refusals
    assert "nvidia_driver_branch=550 can't serve cu128 on sm_120, which needs ≥ 570.26" in refusal.what
    assert refusal.remedy == "set nvidia_driver_branch=570 or later"
    sound = with_driver(bare(RTX5090), "580.95.05", "open")
    assert not make_plan(context(sound, nvidia_driver_branch=550)).refusals, "what is there and serves stays"


def test_a_desktop_is_mentioned_where_something_ends_it() -> None:
    desktop = {"display_manager": "gdm3"}
    assert any("gdm3" in said for said in make_plan(context(bare(RTX5090, **desktop))).caveats)
    sound = with_driver(bare(RTX5090, **desktop), "580.95.05", "open")
    sound["dpkg"] = {"nvidia-open": "580.95.05-1"}
    plan = make_plan(context(sound))
    assert plan.step("guard").action.changes and not any("gdm3" in said for said in plan.caveats)


def test_a_busy_gpu_stops_only_what_would_end_its_work() -> None:
    busy = {"gpu_users": [{"pid": 7, "user": "ann", "name": "python"}]}
    plan = make_plan(context(with_driver(bare(RTX5090, **busy), "580.95.05", "open")))
    assert not plan.refusals and "the GPU is in use by python (pid 7, ann)" in plan.caveats
    due = with_driver(bare(RTX5090, **busy), "580.95.05", "open", "570.124.06", "driver_library_mismatch")
    assert not make_plan(context(due, allow_busy_gpu=True)).refusals
    assert not make_plan(context(due, reboot="never")).refusals


def test_in_a_container_the_driver_is_the_hosts() -> None:
    plan = make_plan(context(with_driver(bare(RTX5090, kind="container"), "580.95.05", "open")))
    assert not plan.refusals
    assert plan.step("driver").action is Action.NA and "serves cu128" in plan.step("driver").why
    assert plan.step("reboot").action is Action.NA
    assert [s.component for s in plan.steps] == [s.component for s in make_plan(context(bare(RTX5090))).steps]


def test_an_old_toolkit_is_joined_by_a_newer_one_and_a_new_one_adopted() -> None:
    state = bare(RTX5090)
    state["cuda"] = [{"path": "/usr/local/cuda-12.4", "release": "12.4", "version": "12.4.131"}]
    assert actions(state)["toolkit"] == "change"
    assert actions(state, cuda_toolkit="never")["toolkit"] == "n/a"
    state["cuda"].append({"path": "/usr/local/cuda-12.9", "release": "12.9", "version": "12.9.86"})
    assert actions(state)["toolkit"] == "none"
    assert actions(bare(RTX5090), cuda_toolkit="always")["toolkit"] == "add"


def converged(stack: str = "standin") -> dict[str, Any]:
    """What a host looks like after a run, as far as the planner is concerned."""
    state = with_driver(bare(RTX5090, compilers={"gcc": "12.2.0", "g++": "12.2.0"}, headers=True), "580.95.05", "open")
    state["dpkg"] = {"nvidia-open": "580.95.05-1"}
    state["files"] = {**guard_digests(), REPOSITORY: "x"}
    state["conda"] = [{"prefix": "/root/miniforge3", "version": "26.3.2", "kind": "miniforge", "sound": True,
                       "writable": True, "envs": []}]
    ctx = context(state, stack)
    wanted = ctx.stack.requirements("3.10")
    name = f".qwen-train-{ctx.stack.lock_id}-1"
    torch = {"version": ctx.stack.torch.release, "cuda": ctx.stack.torch.cuda} if ctx.stack.torch else None
    state["env"] = {"path": "/root/miniforge3/envs/qwen-train", "target": name, "python": "3.10.13",
                    "packages": {n: r.version for n, r in wanted.items()}, "duplicates": [], "torch": torch}
    records: dict[str, Any] = {"env": {}, "flash_attn": {"attention": "sdpa"}, "verification": None, "training": None}
    state["generations"] = [{"name": name, "path": f"/root/miniforge3/envs/{name}", "complete": True,
                             "records": records}]
    records["flash_attn"]["fingerprint"] = flash_spec(context(state, stack)).fingerprint
    records["training"] = settings(context(state, stack))
    records["verification"] = {"fingerprint": fingerprint(context(state, stack)), "overall": "partial",
                               "checks": [{"name": "import", "status": "pass"},
                                          {"name": "kernel", "status": "not_run"}]}
    return state


@pytest.mark.parametrize("stack", ["standin", "guide"])
def test_a_converged_host_has_nothing_to_do(stack: str) -> None:
    plan = make_plan(context(converged(stack), stack))
    assert not plan.changes and not plan.refusals
    assert render.cost([plan]) == "No changes. lab-01 matches."


def test_a_host_with_the_records_of_0_1_0_has_nothing_to_do() -> None:
    """Its verification is in verify.json, which the commands to copy name until another is written."""
    state = converged()
    generation = state["generations"][0]
    text = f"##generation {generation['path']}\n" + "".join(
        f"##record {'verify' if name == 'verification' else name}\n{json.dumps(made)}\n"
        for name, made in generation["records"].items())
    (read,), problem = _conda.read_generations(text)
    assert problem is None
    state["generations"] = [{**generation, "records": read["records"]}]

    def next_(**knobs: str) -> str:
        payload = make_plan(context(state, "standin", **knobs)).step("training").payload
        return payload.next_commands("ssh lab-01", "lab-01")[0]

    plan = make_plan(context(state, "standin"))
    assert not plan.changes and render.cost([plan]) == "No changes. lab-01 matches."
    assert next_() == "ssh lab-01 cat /root/miniforge3/envs/qwen-train/.rig/verify.json"
    assert next_(verification="always").endswith("/.rig/verification.json")
    state = converged()
    assert next_().endswith("/.rig/verification.json")


def test_one_wrong_package_is_mended_alone() -> None:
    state = converged()
    state["env"]["packages"]["six"] = "1.16.0"
    env = make_plan(context(state, "standin")).step("env")
    assert (env.action, env.payload.mode, env.payload.names) == (Action.CHANGE, "mend", ("six",))
    del state["env"]["packages"]["idna"]
    assert "idna absent" in make_plan(context(state, "standin")).step("env").why


def test_torch_drift_and_a_wrong_build_mean_an_env_beside() -> None:
    state = converged("guide")
    state["env"]["torch"] = {"version": "2.8.0+cu126", "cuda": "12.6"}
    env = make_plan(context(state)).step("env")
    assert env.payload.mode == "build" and env.payload.generation.endswith("-2")
    assert "torch 2.8.0+cu126 is built for CUDA 12.6, not 12.8" in env.problems[0]
    state["env"]["torch"] = {"version": "2.8.0+cpu", "cuda": None}
    assert "CPU build" in make_plan(context(state)).step("env").problems[0]
    state = converged("guide")
    state["env"]["packages"]["torch"] = "2.8.0+cu128"  # PyTorch's own index labels the same release so
    assert make_plan(context(state)).step("env").action is Action.NONE


def test_an_unfinished_generation_is_resumed() -> None:
    state = bare(RTX5090)
    name = f".qwen-train-{context(state, 'standin').stack.lock_id}-3"
    state["generations"] = [{"name": name, "path": f"/root/miniforge3/envs/{name}", "complete": False, "records": {}}]
    assert make_plan(context(state, "standin")).step("env").payload.generation == name


def test_a_verification_stands_until_what_it_is_about_changes() -> None:
    state = converged()
    state["driver"]["loaded_version"] = state["driver"]["installed_version"] = "580.105.08"
    assert actions(state, stack="standin")["verification"] == "change"


def test_the_user_is_told_where_the_stack_leaves_the_guide() -> None:
    ctx = context(bare(RTX5090))
    lines = render.notes([(ctx.stack, make_plan(ctx))])
    assert lines[0].startswith("! torch 2.8.0, torchvision 0.23.0, torchaudio 2.8.0 instead of the guide's torch 2.5.1")
    assert "never built for CUDA 12.8" in lines[0]
    other = replace(ctx, stack=replace(ctx.stack, path=Path("other.yml"), deviations=(Deviation("g", "o", "w"),)))
    both = render.notes([(each.stack, make_plan(each)) for each in (ctx, other, ctx)])
    assert [line for line in both if line not in lines] == ["! o instead of the guide's g: w"], "another file's, too"
    assert set(lines) <= set(both) and len(both) == len(set(both)), "and none twice"
    standin = context(bare(RTX5090), "standin")
    line, = render.notes([(standin.stack, make_plan(standin))])
    assert "stand-in" in line


def test_what_is_known_of_a_stack_stands_in_the_document_where_an_env_is_built() -> None:
    schema = {"$ref": "#/$defs/host", "$defs": json.loads((REPO / "docs" / "plan.schema.json").read_text())["$defs"]}
    told = of_plan(make_plan(context(bare(RTX5090))))
    jsonschema.validate(told, schema)
    assert told["deviations"][0]["ours"].startswith("torch 2.8.0") and told["deviations"][0]["why"]
    assert "huggingface/trl#2275" in [row["source"] for row in told["advisories"]]
    right = of_plan(make_plan(context(converged("guide"))))
    assert (right["deviations"], right["advisories"]) == ([], [])


def test_the_last_line_counts() -> None:
    line = render.cost([make_plan(context(bare(RTX5090))), make_plan(context(bare()))])
    assert "1 reboot · 1 host · ↓ 4." in line and "1 host refused" in line
    assert " GB and 4 steps of unknown size · " in line, "NVIDIA's repository, driver, compilers, Miniforge"


def test_a_size_that_is_not_known_is_said_and_never_counted_as_nothing() -> None:
    plan = make_plan(context(bare(RTX5090)))
    unknown = {step.component for step in plan.changes if step.bytes is None}
    assert unknown == {"repository", "driver", "compilers", "conda"}
    sized = {step.component for step in plan.changes if step.bytes == 0}
    assert sized == {"guard", "reboot", "training", "verification"}
    told = of_plan(plan)
    assert {row["component"] for row in told["steps"] if row["bytes"] is None} == unknown
    only = replace(plan, steps=(plan.step("driver"), plan.step("guard")))
    assert render.cost([only]).endswith(" · ↓ 1 step of unknown size")
    assert "↓" not in render.cost([replace(plan, steps=(plan.step("guard"),))])
    ctx = context(bare(RTX5090))
    sized = ctx.stack.entries
    lacking = replace(ctx.stack, entries=(replace(sized[0], requirement=replace(sized[0].requirement, bytes=None)),
                                          *sized[1:]))
    assert make_plan(replace(ctx, stack=lacking)).step("env").bytes is None


def test_a_certificate_on_record_bounds_the_batch_and_a_newer_one_that_says_the_same_changes_nothing() -> None:
    state = converged()
    ctx = replace(context(state, "standin"), largest=LargestBatch(5, "GPU-1", "2026-11-20"))
    step = make_plan(ctx).step("training")
    assert (step.action, step.now, step.wanted) == (Action.CHANGE, "other", "batch 4 × 4")
    assert "measured 2026-11-20: 5 samples fit" in step.why
    state["generations"][0]["records"]["training"] = settings(ctx)
    ctx = replace(context(state, "standin"), largest=ctx.largest)
    assert make_plan(ctx).step("training").action is Action.NONE
    again = replace(ctx, largest=LargestBatch(5, "GPU-1", "2026-11-26"))
    assert make_plan(again).step("training").action is Action.NONE
    assert make_plan(replace(ctx, largest=LargestBatch(6, "GPU-1", "2026-11-26"))).step_changes("training")


def test_training_json_has_why_its_attention_is_what_it_is() -> None:
    state = converged()
    records = state["generations"][0]["records"]
    failed = {"rung": "wheel", "wheel": "a.whl", "version": "2.8.3", "why_not": "no kernel", "last": ["CUDA error"]}
    held = {"rung": "build", "version": "2.8.3", "sha256": "0" * 64, "archs": ["sm_120"], "minutes": 41.5,
            "proof": {"status": "pass", "why": None, "cases": [{}] * 8, "worst": 0.00312, "tolerance": 0.02}}
    records["flash_attn"] |= {**held, "attention": "flash_attention_2", "rejected": ["b: for cp311"], "time": 1,
                              "tried": [failed, {**held, "why_not": None}]}
    records["training"]["attention_from"] = {"rung": "build", "version": "2.8.3"}  # as it was once written
    step = make_plan(context(state, "standin")).step("training")
    assert step.why.startswith("differs in: attention_from") and step.payload.settings["attention_from"] == {
        "rung": "build", "version": "2.8.3", "sha256": "0" * 64, "archs": ["sm_120"], "rejected": ["b: for cp311"],
        "tried": [{"rung": "wheel", "why_not": "no kernel", "last": ["CUDA error"]}],
        "proof": {"worst": 0.00312, "tolerance": 0.02}, "minutes": 41.5}
    records["training"] = step.payload.settings
    assert make_plan(context(state, "standin")).step("training").action is Action.NONE
    records["flash_attn"] |= {"minutes": 39.0, "time": 2}  # another attempt that ended the same
    assert make_plan(context(state, "standin")).step("training").action is Action.NONE
    records["flash_attn"]["sha256"] = "1" * 64
    assert make_plan(context(state, "standin")).step("training").action is Action.CHANGE


@pytest.mark.parametrize(("beside", "said"), [
    ({"train_qwen.py": "x"}, "accelerate.yaml beside it"),
    ({"train_qwen.py": "x", "accelerate.yaml": "of other settings"}, "accelerate.yaml beside it"),
    ({}, "accelerate.yaml, train_qwen.py beside it"),
])
def test_what_lies_beside_training_json_is_noticed_when_it_is_gone(beside: dict[str, str], said: str) -> None:
    state = converged()
    text = accelerate_text(state["generations"][0]["records"]["training"])
    state["generations"][0]["beside"] = {"train_qwen.py": "x", "accelerate.yaml": sha256(text.encode()).hexdigest()}
    assert not make_plan(context(state, "standin")).changes
    state["generations"][0]["beside"] = beside
    step = make_plan(context(state, "standin")).step("training")
    assert step.action is Action.CHANGE and step.why.startswith(said)


def test_a_model_is_prefetched_where_one_is_wanted_and_there_is_room() -> None:
    state, wanted = converged(), {"prefetch_model": "Qwen/Qwen2.5-7B"}
    assert all(step.component != "prefetch" for step in make_plan(context(state, "standin")).steps)
    plan = make_plan(context(state, "standin", **wanted))
    step = plan.step("prefetch")
    assert step.action is Action.ADD and step.bytes == pytest.approx(7.616e9 * 2, rel=0.01) and not plan.refusals
    assert step.why == "prefetch_model; to /root/.cache/huggingface"
    state["host"]["disks"][0]["free_mib"] = 15_000
    refused = make_plan(context(state, "standin", **wanted)).refusals
    assert "/ has 14.6 GiB free, and Qwen/Qwen2.5-7B with what else comes there takes 15.2 GiB" in refused[0].what
    assert not make_plan(context(state, "standin", prefetch_model="Qwen/Qwen2.5-0.5B")).refusals
    assert not make_plan(context(state, "standin", prefetch_model="somebody/unknown")).refusals, "the host looks itself"


def test_a_prefetched_model_is_left_alone_while_it_is_whole() -> None:
    state = converged()
    generation = state["generations"][0]
    generation["records"]["prefetch"] = {"model": "Qwen/Qwen2.5-0.5B", "home": "/h", "commit": "0123456789abcdef"}
    generation["beside"] = {"snapshot": "whole", "train_qwen.py": "x", "accelerate.yaml": sha256(
        accelerate_text(generation["records"]["training"]).encode()).hexdigest()}
    assert not make_plan(context(state, "standin", prefetch_model="Qwen/Qwen2.5-0.5B")).changes
    other = make_plan(context(state, "standin", prefetch_model="Qwen/Qwen3-0.6B")).step("prefetch")
    assert (other.action, other.now, other.wanted) == (Action.ADD, "Qwen/Qwen2.5-0.5B", "Qwen/Qwen3-0.6B")
    del generation["beside"]["snapshot"]
    gone = make_plan(context(state, "standin", prefetch_model="Qwen/Qwen2.5-0.5B")).step("prefetch")
    assert gone.action is Action.ADD and "no longer whole" in gone.why


def test_a_model_that_is_no_models_name() -> None:
    with pytest.raises(RigError, match="prefetch_model can't be 'Qwen'"):
        context(converged(), "standin", prefetch_model="Qwen")
