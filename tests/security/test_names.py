"""Names that a host lists: each matches as a whole, or it isn't seen at all."""

from __future__ import annotations

from typing import Any

import pytest

from qwen_rig.deploy.env.plan import kept, next_generation
from qwen_rig.facts import _conda, _dist, _dpkg, _host, _pci, _smi
from tests.plan.states import RTX5090, bare, context

EVIL = ("$(id)", "`id`", "a;id", "a|id", "a b", "a\tb", "a'b", 'a"b', "../a", "a/../b", "-rf", "--option", "a&b", "a>b",
        "*", "\x1b[2J", "a\x0bb", "a\u2028b", "a\u202eb", "a\x85b", "", ".", "..", "a\\b", "a%b", "é", "٣")


def lock() -> str:
    return context(bare(RTX5090), stack="standin", python="3.10").stack.lock_id


@pytest.mark.parametrize("tail", [*(f"{evil}-7" for evil in EVIL), "07", "0", "-7", "7 ", "7\n", "²", "٣", "7a", "a7",
                                  "9999999999", *EVIL])
def test_a_generation_s_name_matches_whole_or_is_not_there(tail: str) -> None:
    name = f".qwen-train-{lock()}-{tail}"
    state: dict[str, Any] = bare(RTX5090)
    state["generations"] = [{"name": name, "path": f"/root/miniforge3/envs/{name}", "complete": True,
                             "records": {"env": {}}, "beside": {}}]
    ctx = context(state, stack="standin", python="3.10")
    assert kept(ctx) is None and next_generation(ctx) == f".qwen-train-{lock()}-1"


@pytest.mark.parametrize("evil", [evil for evil in EVIL if evil not in ("é", "٣")])
def test_the_probe_s_readers_see_none(evil: str) -> None:
    generations, _ = _conda.read_generations(f"##generation /root/miniforge3/envs/{evil}\n##record env\n|{{}}\n")
    assert not [row for row in generations if row["name"] == evil]
    condas = _conda.read(f"##conda /opt/conda\nrecord=conda-26.3.2-py\nsound=1\nenv={evil}\n")
    assert condas[0]["envs"] == ["base"]
    assert _smi.uuid(f"GPU-{evil}") is None or evil == "-rf" or evil == "--option"
    with pytest.raises(ValueError, match="slot or id"):
        _pci.read(f"slot=0000:01:00.{evil}\nclass=0x030000\ndevice=0x2b85\n")


@pytest.mark.parametrize("evil", ["$(id)", "`id`", "a;id", "a'b", "a>b", "\x1b[2J", "a\x0bb", "a\u2028b", "é", "a\\b"])
def test_packages_and_the_kernel_bear_names(evil: str) -> None:
    assert _dist.package(f"six{evil}-1.0.dist-info") is None and _dist.package(f"six-1{evil}.dist-info") is None
    assert not any(evil in name + version for name, version in
                   _dpkg.read(f"ii nvidia-{evil} 1.0\nii cuda-x 1{evil}").items())
    with pytest.raises(ValueError, match="no name"):
        _host._system(f"kernel=6.1{evil}\narch=x86_64\nhostname=h\ntime=1\n")
    assert _dist.read(f"##env /e\npython=1\nlib=3.1{evil}\n")[0]["python"] is None


def test_whoever_s_names_are_names_is_seen() -> None:
    assert _dist.package("ruamel.yaml-0.18.6.dist-info") == ("ruamel-yaml", "0.18.6")
    assert _dist.package("torch-2.8.0+cu128.dist-info") == ("torch", "2.8.0+cu128")
    assert _dpkg.read("ii libnvidia-compute-580:amd64 580.95.05-0ubuntu0.24.04.1") == {
        "libnvidia-compute-580": "580.95.05-0ubuntu0.24.04.1"}
    assert _smi.uuid("GPU-11111111-2222-3333-4444-555555555555")
    name = ".my env-0a1b2c3d4e5f-12"
    assert _conda.read_generations(f"##generation /c/envs/{name}\n")[0][0]["name"] == name
