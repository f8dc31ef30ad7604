"""What a fleet shares of flash-attn: which wheel serves which host, the controller's cache, the jobs of a build."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from packaging.version import Version

from qwen_rig.domain import Domain
from qwen_rig.errors import RigError
from qwen_rig.facts import _cgroup
from qwen_rig.flash import cache, resources
from qwen_rig.flash.key import Key, words

LAB = Domain("lab")
KEY = Key("flash-attn", "2.8.3", "2.8", "12.8", True, "3.10", "2.35", ("120", "90"))


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def wheel(folder: Path, content: bytes = b"wheel" * 1000) -> Path:
    path = folder / "flash_attn-2.8.3-cp310-cp310-linux_x86_64.whl"
    path.write_bytes(content)
    return path


def test_a_name_is_one_folder_and_no_two_keys_share_one() -> None:
    assert KEY.name == "flash-attn_2.8.3_torch2.8_cu12.8_abiTRUE_cp3.10_glibc2.35_sm90-120"
    others = [replace(KEY, version="2.8.3/../x"), replace(KEY, version="2.8.3%2f..%2fx"), replace(KEY, archs=()),
              replace(KEY, cxx11abi=False), replace(KEY, package="a_b"), replace(KEY, torch="2.8_cu12.8")]
    names = {KEY.name, *(other.name for other in others)}
    assert len(names) == 1 + len(others) and not any("/" in name or name.startswith(".") for name in names)
    assert Key.from_json(KEY.to_json()) == KEY


def test_architectures_are_the_words_that_flash_attn_knows() -> None:
    cards = [Version(text) for text in ("12.0", "8.9", "8.6", "9.0", "7.5", "6.1")]
    assert words(cards) == ("80", "90", "120") and words([]) == ()


@pytest.mark.parametrize(("wanted", "serves"), [
    ({}, True), ({"glibc": "2.39"}, True), ({"glibc": "2.4"}, False), ({"glibc": "2.31"}, False),
    ({"archs": ("120",)}, True), ({"archs": ("80", "120")}, False), ({"cxx11abi": False}, False),
    ({"torch": "2.9"}, False), ({"cuda": "13.0"}, False), ({"python": "3.11"}, False), ({"version": "2.8.2"}, False)])
def test_a_wheel_serves_a_newer_glibc_and_fewer_architectures_and_nothing_else(
        wanted: dict[str, object], serves: bool) -> None:
    assert KEY.serves(replace(KEY, **wanted)) is serves  # type: ignore[arg-type]


def test_what_is_kept_is_found_by_whom_it_serves(tmp_path: Path) -> None:
    assert cache.find(LAB, KEY) is None
    kept = cache.keep(LAB, KEY, wheel(tmp_path), {"minutes": 18})
    assert kept.path.name == wheel(tmp_path).name and kept.path.is_relative_to(cache.folder(LAB) / KEY.name)
    assert cache.find(LAB, replace(KEY, glibc="2.39", archs=("120",))) == kept
    assert cache.find(LAB, replace(KEY, glibc="2.31")) is None
    newer = cache.keep(LAB, replace(KEY, glibc="2.39"), wheel(tmp_path, b"built on 2.39"), {})
    assert cache.find(LAB, replace(KEY, glibc="2.40")) == newer, "the nearest glibc is preferred"
    assert cache.find(LAB, KEY) == kept


def test_a_damaged_wheel_is_not_used_and_that_is_said(tmp_path: Path) -> None:
    kept = cache.keep(LAB, KEY, wheel(tmp_path), {})
    with kept.path.open("r+b") as file:
        file.seek(100)
        file.write(b"\0")
    said: list[str] = []
    assert cache.find(LAB, KEY, said.append) is None
    assert len(said) == 1 and "sha256" in said[0] and str(kept.path) in said[0]
    kept.path.unlink()
    assert cache.find(LAB, KEY, said.append) is None and "No such file" in said[1]
    (cache.folder(LAB) / KEY.name / "record.json").write_text("{")
    assert cache.find(LAB, KEY, said.append) is None and "record" in said[2]
    assert cache.keep(LAB, KEY, wheel(tmp_path), {}) == cache.find(LAB, KEY), "the next build puts it right"


def test_keeping_again_replaces_and_a_broken_off_keep_leaves_what_was(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = cache.keep(LAB, KEY, wheel(tmp_path), {"n": 1})
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")
    with monkeypatch.context() as broken:
        broken.setattr(cache.shutil, "copyfile", full)
        with pytest.raises(OSError, match="No space"):
            cache.keep(LAB, KEY, wheel(tmp_path, b"another"), {"n": 2})
    assert cache.find(LAB, KEY) == first
    second = cache.keep(LAB, KEY, wheel(tmp_path, b"another"), {"n": 2})
    assert cache.find(LAB, KEY) == second and not first.path.exists()


CAPTURED = Path(__file__).parents[1] / "facts" / "cases" / "probe.HostState"
GIB = 2**30


def captured(name: str) -> str:
    """The part of a captured probe that tells of limits."""
    output: str = yaml.safe_load((CAPTURED / name).read_text())["output"]
    return output.split("##rig host.limits\n")[1].split("##rig")[0]


def limits(total_gib: float, cores: int, memory_max_gib: int | None = None, cpu_max: str = "max 100000") -> str:
    """What facts/_cgroup.py reads on such a host."""
    memory_max = memory_max_gib * GIB if memory_max_gib else "max"
    return (f"MemTotal: {int(total_gib * 2**20)} kB\nprocessors: {cores}\nmemory.max: {memory_max}\n"
            f"cpu.max: {cpu_max}\n")


@pytest.mark.parametrize(("text", "wanted", "shape"), [
    (captured("rented-h200.yaml"), 8,
     "captured: a rented H200, 16 cores, 125.9 GiB: (125.9 - 4) / 6 = 20, so the guide's 8"),
    (captured("no-gpu-nvcc-13.yaml"), 2,
     "captured: 2 cores, 23.5 GiB: memory for 3, but 2 cores"),
    (limits(220, 24), 8, "Azure's Standard_NC24ads_A100_v4: 24 vCPUs, 220 GiB (Microsoft's size tables)"),
    (limits(16, 4), 2, "AWS's g5.xlarge, an A10G: 4 vCPUs, 16 GiB (Amazon's instance types): memory for 2"),
    (limits(503, 64, 32, "800000 100000"), 4,
     "a rented container's 8 cores and 32 GiB of a host with 64 and 503: the cgroup's (32 - 4) / 6 = 4, not the "
     "host's 8. Made up, in the form that Docker's limits have"),
    (limits(64, 32), 8, "a 5090 rented at vast: 32 vCPUs, 64 GiB (SkyPilot's catalog of offers, v8/vast/vms.csv)"),
    (limits(44.7, 12), 6, "fal's GPU-RTX4090: 12 cores, 48 GB, which are 44.7 GiB (docs.fal.ai, Machine types)"),
    (limits(15.3, 16), 1, "a laptop of 16 GiB: 15.3 of them are the system's: 1 job. Made up"),
])
def test_jobs_on_host_shapes(text: str, wanted: int, shape: str) -> None:
    memory_mib, cores = _cgroup.read(text)
    assert resources.jobs(cores, memory_mib) == wanted, shape
    assert resources.arithmetic(cores, memory_mib).endswith(f"= {wanted} job{'s' * (wanted > 1)}")


def test_no_room_for_one_job_is_refused_with_the_sum() -> None:
    with pytest.raises(RigError, match=r"\(6 − 4\) / 6 GiB of memory is less than one compile job"):
        resources.jobs(8, 6144)
    assert resources.jobs(0.5, 10240) == 1, "half a core still runs one job"
