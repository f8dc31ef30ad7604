"""Stacks: every mistake is one line that names file and key; lock, sizes and stack agree; nothing names a host."""

from __future__ import annotations

import runpy
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

from qwen_rig.catalog.lock import environment, read_lock
from qwen_rig.catalog.stack import DATA, Stack, known_stacks, load_stack
from qwen_rig.errors import RigError
from qwen_rig.knobs import NAMES, read


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A stack file of one's own: the stand-in with its lock beside it, to be spoilt."""
    for name in ("stacks/standin.yml", "locks/standin.lock.txt", "locks/standin.sizes.yml"):
        shutil.copy(DATA / name, tmp_path)
    return tmp_path / "standin.yml"


def spoil(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def said(name: str) -> str:
    with pytest.raises(RigError) as caught:
        load_stack(name)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_known_stacks_load() -> None:
    assert known_stacks() == ["grpo", "guide", "guide-literal", "nightly", "qwen3", "qwen3.5", "qwen3.5-cu128",
                              "standin"]
    assert [load_stack(name).name for name in known_stacks()] == known_stacks()


def test_unknown_stack_lists_the_known() -> None:
    assert said("gide") == (
        "there is no stack 'gide' · stack · take one of grpo, guide, guide-literal, nightly, qwen3, qwen3.5, "
        "qwen3.5-cu128, standin")


def test_own_stack_file_loads(own: Path) -> None:
    assert load_stack(str(own)).lock == own.with_name("standin.lock.txt")


@pytest.mark.parametrize(("old", "new", "words"), [
    ("standin: true", "standin: maybe", "standin must be true or false, not 'maybe'"),
    ("import_gate:", "import_gat:", "import_gate is missing"),
    ("unpinned: []", "unpinned: []\ncolour: blue", "unknown key colour"),
    ("version: 8.1.8,", "versoin: 8.1.8,", "pins.click.version is missing"),
    ("version: 8.1.8,", "version: 8.1,", "pins.click.version must be a text, not 8.1"),
    ("version: 8.1.8,", "version: new,", "pins.click.version must be a version, not 'new'"),
    ("version: 8.1.8,", "version: 8.1.7,", "pins.click wants 8.1.7, but the lock has 8.1.8 for Python 3.10"),
    ("  six:", "  sixx:", "pins.sixx wants 1.17.0, but the lock doesn't hold it for Python 3.10"),
    ("unpinned: []", "unpinned: [rich]", "unpinned or sdists name rich, which the lock lacks"),
    ("lock: standin", "lock: nowhere", "the lock can't be read: No such file or directory"),
    ("sizes: standin", "sizes: nowhere", "the sizes can't be read"),
    ("env_mib: 300", "env_mib: lots", "disk.env_mib must be a whole number, not 'lots'"),
    ("  cache_mib: 50", "  cache_mib: 50\n  more: 1", "unknown key disk.more"),
    ('python: "3.10"', "python: 3.10", "python must be a text, not 3.1"),
    ('python: "3.10"', 'python: "3.13"', "python 3.13 isn't among pythons"),
    ('cuda: "12.8"', "cuda: twelve", "cuda must be a version, not 'twelve'"),
    ('cuda: "12.8"', 'cuda: "12.1"', "cuda can't be '12.1': no driver is known for it"),
    ("  glibc: null", "  glibc: x.y", "flash_attn.glibc must be a version, not 'x.y'"),
    ("rebuild: [packaging]", "rebuild: [1]", "rebuild must hold texts only, not 1"),
    ("sha256: 0551", "sha256: 551", "flash_attn.wheels.py3.sha256 must be 64 lower-case hex digits"),
    ("torch: null", "torch: [2]", "torch must be a mapping, not [2]"),
    ("name: standin", "name: [standin", "is no YAML"),
])
def test_mistakes_are_one_line(own: Path, old: str, new: str, words: str) -> None:
    spoil(own, old, new)
    line = said(str(own))
    assert words in line
    assert "standin" in line or "nowhere" in line  # the file


@pytest.mark.parametrize(("old", "new", "words"), [
    ("click==8.1.8", "click>=8.1.8", "click has no exact version"),
    ("click==8.1.8", "click==", "no requirement"),
    ("six==1.17.0 \\", "six==1.17.0\n#", "six has no sha256 hash"),
    ("six==1.17.0 \\", "six==1.17.* \\", "six has no exact version"),
    ("8830015b9ed1948f\n", "8830015b9ed1948f \\", "the last entry is cut off"),
])
def test_broken_locks_name_their_line(own: Path, old: str, new: str, words: str) -> None:
    lock = own.with_name("standin.lock.txt")
    spoil(lock, old, new)
    assert words in said(str(own))
    assert f"{lock}:" in said(str(own))


@pytest.mark.parametrize("which", ["lock.txt", "sizes.yml"])
def test_a_lock_that_is_no_text_is_one_line(own: Path, which: str) -> None:
    own.with_name(f"standin.{which}").write_bytes(b"six \xff")
    assert "can't be read" in said(str(own)) and "make lock STACK=standin" in said(str(own))


@pytest.fixture
def guide(tmp_path: Path) -> Path:
    """A copy of the guide's stack file, whose lock is the project's, to be spoilt."""
    return Path(shutil.copy(DATA / "stacks" / "guide.yml", tmp_path / "own.yml"))


@pytest.mark.parametrize(("old", "new", "words"), [
    ('  cuda: "12.8"', '  cuda: "11.8"', "torch.cuda can't be '11.8': no driver is known for it"),
    ('  glibc: "2.28"', '  glibc: "x.y"', "torch.glibc must be a version, not 'x.y'"),
    ("release: 2.8.0", "release: 2.5.1", "torch 2.5.1 was never published for CUDA 12.8: it exists for cu118, cu121, "
     "cu124 only, and cu128 begins with torch 2.7"),
    ("release: 2.8.0", "release: 2.12.0", "torch 2.12.0 was never published for CUDA 12.8: it exists for cu126, cu130, "
     "cu132 only ·"),
    ("release: 2.8.0", "release: 2.9.1", "torch.release is 2.9.1, but pins.torch is 2.8.0"),
    ("archs: [sm_70, ", "archs: [", "torch.archs isn't what torch 2.8 cu128 has code for"),
])
def test_a_torch_that_cannot_be_is_one_line(guide: Path, old: str, new: str, words: str) -> None:
    spoil(guide, old, new)
    line = said(str(guide))
    assert words in line and str(guide) in line


@pytest.mark.parametrize(("release", "pin", "words"), [
    ("2.99.0", "2.99.0", "pins.torch wants 2.99.0, but the lock has 2.8.0"),  # newer than the tables: only the lock
    ("2.12.0.dev20260901", "2.12.0.dev20260901", "pins.torch wants 2.12.0.dev20260901, but the lock"),  # no release
    ("2.8.0", "2.8.0+cu128", "pins.torch wants 2.8.0+cu128, but the lock"),  # an index of torch's own calls it so
])
def test_what_the_tables_do_not_know_they_do_not_refuse(guide: Path, release: str, pin: str, words: str) -> None:
    spoil(guide, "release: 2.8.0", f"release: {release}")
    spoil(guide, "  torch: {version: 2.8.0,", f"  torch: {{version: {pin},")
    assert words in said(str(guide))


def test_an_unpinned_torch_is_the_locks(guide: Path) -> None:
    spoil(guide, "  torch: {version: 2.8.0,", "  setuptools: {version: 0.0.1,")
    spoil(guide, "release: 2.8.0", "release: 2.9.1")
    assert "torch.release is 2.9.1, but the lock's torch is 2.8.0" in said(str(guide))


def test_guide_literal_says_what_exists() -> None:
    stack = load_stack("guide-literal")
    assert stack.refused is not None
    with pytest.raises(RigError) as caught:
        stack.requirements("3.10")
    assert str(caught.value) == (
        "torch 2.5.1 was never published for CUDA 12.8: it exists for cu118, cu121, cu124 only, and cu128 begins with "
        "torch 2.7 · stack guide-literal · take stack=guide")


@pytest.fixture(params=["guide", "qwen3", "standin"])
def stack(request: pytest.FixtureRequest) -> Stack:
    return load_stack(request.param)


def test_each_python_has_every_package_with_hashes_and_size(stack: Stack) -> None:
    for python in stack.pythons:
        wanted = stack.requirements(python)
        assert set(stack.pins) | set(stack.unpinned) <= set(wanted)
        assert all(r.hashes and r.bytes and Version(r.version) for r in wanted.values())


def test_no_python_gets_two_versions_of_a_package(stack: Stack) -> None:
    assert stack.lock is not None
    entries = read_lock(stack.lock, {})
    assert {e.name for e in entries} == set().union(*(stack.requirements(p) for p in stack.pythons))
    for python in stack.pythons:
        names = [e.name for e in entries if e.marker is None or e.marker.evaluate(environment(python))]
        assert len(names) == len(set(names))


def test_python_without_a_lock_is_refused(stack: Stack) -> None:
    with pytest.raises(RigError, match=r"has no lock for Python 3\.13 .* set python to one of 3\.10, 3\.11, 3\.12"):
        stack.requirements("3.13")


def test_lock_id_is_the_locks_own(stack: Stack) -> None:
    assert stack.lock_sha256.startswith(stack.lock_id) and len(stack.lock_id) == 12
    assert stack.lock is not None and stack.lock_text == stack.lock.read_text()


def test_guide_costs_what_was_measured() -> None:
    guide = load_stack("guide")
    wanted = guide.requirements("3.10")
    assert len(wanted) == 119
    assert guide.bytes_for(wanted, "3.10") == pytest.approx(4.2e9, rel=0.02)
    assert guide.bytes_for(["torch", "no-such-package"], "3.10") == wanted["torch"].bytes
    assert guide.cuda_tag == "cu128"


def test_standin_is_small_and_says_what_it_is() -> None:
    standin = load_stack("standin")
    assert standin.standin and "stand-in" in standin.summary and standin.torch is None
    assert standin.bytes_for(standin.requirements("3.10"), "3.10") < 1_000_000


def test_a_lock_of_some_packages_is_a_lock() -> None:
    text = load_stack("standin").lock_for(["six", "idna", "absent"], "3.10")
    lines = text.splitlines()
    assert [Requirement(line.split(" --hash", 1)[0]).name for line in lines] == ["idna", "six"]
    assert all("--hash=sha256:" in line for line in lines)


def test_expectation_is_what_the_lock_says() -> None:
    expect = load_stack("guide").expect("3.11", gpu=False)
    assert expect["packages"]["torch"] == "2.8.0" and expect["gpu"] is False
    assert expect["torch"] == {"release": "2.8.0", "cuda": "12.8", "archs": list(load_stack("guide").torch.archs)}  # type: ignore[union-attr]


def addresses(value: Any, key: str = "") -> Iterator[str]:
    """The keys below which an address stands; citations and captured logs are left out."""
    if isinstance(value, dict):
        for name, each in value.items():
            yield from addresses(each, str(name))
    elif isinstance(value, list):
        for each in value:
            yield from addresses(each, key)
    elif isinstance(value, str) and "://" in value and not key.endswith("source") and key != "text":
        yield key


def test_addresses_stand_in_sources_only() -> None:
    """What is fetched; a row's `source` says where a fact is from."""
    holders = {path.name for path in DATA.rglob("*.yml") if any(addresses(yaml.safe_load(path.read_text())))}
    assert holders == {"sources.yml"}
    assert not [path for path in DATA.rglob("*.txt") if "://" in path.read_text()]


def knobs(**set_: object) -> Any:
    defaults = runpy.run_path(str(Path(__file__).parents[2] / "group_data" / "all.py"))
    return read({name: defaults[name] for name in NAMES} | set_, "host lab-01")


def test_nightly_is_refused_in_one_line_without_consent_and_says_what_it_takes_with_it() -> None:
    with pytest.raises(RigError) as caught:
        knobs(stack="nightly")
    assert str(caught.value) == (
        "stack nightly would take torch, torchvision, torchaudio unchecked: nightly builds change every day and vanish "
        "after weeks, so no lock can hold them · host lab-01 · set accept_unlocked_torch=true to take them so")
    knobs(stack="nightly", accept_unlocked_torch=True)
    torch = load_stack("nightly").torch_source(None, "3.10")
    assert torch is not None and torch.index.endswith("/nightly/cu128")
    assert torch.requirements == "torch\ntorchvision\ntorchaudio\n"
    assert (torch.hashed, torch.pre, torch.deps) == (False, True, True)
    assert "torch" not in load_stack("nightly").requirements("3.10")


def test_pytorchs_index_has_other_bytes_and_so_asks_for_consent() -> None:
    with pytest.raises(RigError, match=r"no lock holds hashes .* or leave source_torch_index out"):
        knobs(source_torch_index="pytorch")
    knobs(source_torch_index="pytorch", accept_unlocked_torch=True)
    guide = load_stack("guide")
    assert guide.torch_source(None, "3.10") is None
    torch = guide.torch_source("pytorch", "3.10")
    assert torch is not None and torch.index.endswith("/whl/cu128") and not torch.deps
    assert torch.requirements.splitlines() == ["torch==2.8.0+cu128", "torchvision==0.23.0+cu128",
                                               "torchaudio==2.8.0+cu128"]
    rest = guide.lock_beside(torch, "3.10")
    assert "\ntriton==" in rest and "\ntorch==" not in rest and "\ntorchaudio==" not in rest
    assert "asks for accept_unlocked_torch" in guide.lock_text.splitlines()[2]


def test_hash_lines_of_ones_own_make_consent_needless(own: Path) -> None:
    own.with_name("own.torch.txt").write_text("six==1.17.0 --hash=sha256:" + "0" * 64 + "\n")
    spoil(own, "unpinned: []", "unpinned: []\ntorch_index: {packages: [six], only: false, pre: false, "
                               "lock: own.torch.txt, why: -}")
    stack = load_stack(str(own))
    stack.check_index("https://mirror.example/cu128", False, "test")
    torch = stack.torch_source("https://mirror.example/cu128", "3.10")
    assert torch is not None and torch.hashed and torch.requirements.endswith("0" * 64 + "\n")


def test_a_stack_whose_torch_is_in_one_place_only_takes_no_other_source() -> None:
    with pytest.raises(RigError, match="leave source_torch_index out, or give the stack file a torch_index"):
        replace(load_stack("guide"), torch_index=None).check_index("pytorch", True, "host lab-01")
