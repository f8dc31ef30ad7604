"""Which conda makes the env, where, and from which channel."""

from __future__ import annotations

from typing import Any

import pytest

from qwen_rig.deploy.planning import make_plan
from qwen_rig.network.route import candidates
from qwen_rig.plan import Action
from qwen_rig.plan.env import envs_dir, prefix

from .states import RTX5090, bare, context, with_driver


def host(version: str | None = "26.3.2", at: str = "/opt/conda", **condarc: Any) -> dict[str, Any]:
    state = with_driver(bare(RTX5090), "580.95.05", "open")
    state["conda"] = [{"prefix": at, "version": version, "kind": "miniconda", "sound": True, "writable": True,
                       "envs": ["base"]}]
    state["condarc"] = condarc
    return state


@pytest.mark.parametrize(("version", "adopted"), [
    ("4.8.5", False), ("4.10.3", False), ("4.11.0", True), ("22.9.0", True), ("26.3.2", True)])
def test_a_conda_that_cannot_count_to_ten_is_named_and_left_alone(version: str, adopted: bool) -> None:
    step = make_plan(context(host(version))).step("conda")
    assert (step.action is Action.NONE) is adopted
    if not adopted:
        assert f"conda {version} at /opt/conda is too old" in step.why and step.payload.prefix == "/root/miniforge3"
        named = make_plan(context(host(version), conda_prefix="/opt/conda")).refusals
        assert any(f"conda_prefix names conda {version}" in row.what for row in named)
    holds = host(version)
    holds["env"] = {"path": "/opt/conda/envs/qwen-train", "target": None, "python": "3.10.13", "packages": {},
                    "duplicates": [], "torch": None}
    assert prefix(context(holds)) == "/opt/conda", "what is there already need not be made"


@pytest.mark.parametrize(("length", "refused"), [(114, 0), (115, 1), (128, 1)])
def test_a_path_too_long_for_a_first_line_is_refused_before_anything_is_made(length: int, refused: int) -> None:
    state = with_driver(bare(RTX5090), "580.95.05", "open")
    found = make_plan(context(state, conda_prefix="/" + "p" * (length - 1))).refusals
    assert sum("conda's programs there" in row.what for row in found) == refused
    assert any("qwen-train" in row.what and "too long" in row.what for row in found), "the env's path is longer"
    assert not make_plan(context(state, conda_prefix="/" + "p" * 60)).refusals


@pytest.mark.parametrize(("condarc", "url", "mirrors"), [
    ({}, "conda-forge", True),
    ({"channel_alias": "https://m.example/cloud/"}, "https://m.example/cloud/conda-forge", True),
    ({"channel_alias": "https://m.example", "custom_channels": {"conda-forge": "file:///srv/c"}},
     "file:///srv/c/conda-forge", True),
    ({"custom_channels": {"other": "https://m.example"}}, "conda-forge", True),
    ({"custom_channels": {"conda-forge": "***"}}, None, False),
])
def test_the_hosts_own_mirror_of_a_channel_is_used(condarc: dict[str, Any], url: str | None, mirrors: bool) -> None:
    ctx = context(host(**condarc))
    first, *others = candidates(ctx, ["conda_channel"])["conda_channel"]
    assert first.url == url and bool(others) is mirrors, "one with credentials is conda's own secret, and the only one"
    own = context(host(**condarc), source_conda_channel="https://own.example/x")
    assert [row.url for row in candidates(own, ["conda_channel"])["conda_channel"]] == ["https://own.example/x"]


def test_the_env_goes_where_condarc_sends_envs_unless_it_is_elsewhere_already() -> None:
    state = host(envs_dirs=["/data/envs", "/srv/envs"])
    assert envs_dir(context(state)) == "/data/envs"
    assert envs_dir(context(state, conda_prefix="/opt/conda")) == "/opt/conda/envs"
    state["env"] = {"path": "/srv/envs/qwen-train", "target": None, "python": "3.10.13", "packages": {},
                    "duplicates": [], "torch": None}
    assert envs_dir(context(state)) == "/srv/envs"
    state["env"]["path"] = "/opt/conda/envs/qwen-train"
    assert envs_dir(context(state)) == "/opt/conda/envs"
