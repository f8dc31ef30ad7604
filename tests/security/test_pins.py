"""`make pins` against mirrors of this machine: it writes what loads as pinned, and leaves alone what it can't have."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import yaml
from packaging.version import Version

from qwen_rig.catalog.conda_lock import load_conda_lock
from qwen_rig.catalog.flash_wheels import others
from qwen_rig.catalog.sources import load_sources
from qwen_rig.catalog.stack import DATA, load_stack
from qwen_rig.errors import RigError
from scripts import pins

TAG = "cu128"
TORCH = load_stack("qwen3.5").torch
CONDA = """#!/bin/sh
# A conda that solves anything: it says what `plan.json` beside it has.
cat "$(dirname "$0")/plan.json"
"""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A copy of the stack guide with its locks."""
    for folder in ("stacks", "locks"):
        (tmp_path / "data" / folder).mkdir(parents=True)
    shutil.copy(DATA / "stacks" / "guide.yml", tmp_path / "data" / "stacks")
    for name in ("guide.lock.txt", "guide.sizes.yml", "conda.yml"):
        shutil.copy(DATA / "locks" / name, tmp_path / "data" / "locks")
    return tmp_path / "data"


@pytest.fixture
def mirror(tmp_path: Path) -> Path:
    """A channel with one package, a conda that chooses it, and an index with torch's wheels."""
    package = tmp_path / "channel" / "noarch" / "pip-25.0-0.conda"
    package.parent.mkdir(parents=True)
    package.write_bytes(b"pip")
    row = {"fn": package.name, "subdir": "noarch", "url": package.as_uri(), "sha256": digest(b"pip")}
    (tmp_path / "conda").write_text(CONDA)
    (tmp_path / "conda").chmod(0o755)
    (tmp_path / "plan.json").write_text(json.dumps({"actions": {"FETCH": [row]}}))
    for name, version in (("torch", "2.8.0"), ("torchvision", "0.23.0"), ("torchaudio", "2.8.0")):
        page = tmp_path / "index" / TAG / name
        page.mkdir(parents=True)
        links = [f"{name}-{version}%2B{TAG}-{tag}-{tag}-{platform}.whl#sha256={digest(tag.encode())}"
                 for tag in ("cp39", "cp310", "cp311", "cp312", "cp313")
                 for platform in ("manylinux_2_28_x86_64", "win_amd64")]
        (page / "index.html").write_text("".join(f'<a href="{link}">x</a>' for link in [
            *links, f"{name}-9.0%2B{TAG}-cp310-cp310-manylinux_2_28_x86_64.whl#sha256={digest(b'newer')}"]))
    return tmp_path


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def run(data: Path, mirror: Path) -> int:
    return pins.main(["--data", str(data), "--conda", str(mirror / "conda"), "--channel", (mirror / "channel").as_uri(),
                      "--torch-index", (mirror / "index").as_uri()])


def test_what_it_writes_is_pinned(data: Path, mirror: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pins, "get", of_a_folder)
    assert run(data, mirror) == 0
    lock = load_conda_lock(str(data / "locks" / "conda.yml"))
    assert not lock.not_pinned
    for python in ("3.10", "3.11", "3.12"):
        assert [(file.path, file.sha256, file.bytes) for file in lock.files(python)] == [
            ("noarch/pip-25.0-0.conda", digest(b"pip"), 3)]
    for name in ("guide.yml", "guide.lock.txt", "guide.sizes.yml", "guide.torch.lock.txt"):
        found = data / ("stacks" if name == "guide.yml" else "locks") / name
        shutil.copy(found, mirror / name)
    stack = load_stack(str(mirror / "guide.yml"))
    torch = stack.torch_source("pytorch", "3.11")
    assert torch is not None and torch.hashed and set(torch.packages["torch"].hashes) == {
        f"sha256:{digest(tag)}" for tag in (b"cp310", b"cp311", b"cp312")}
    stack.check_index("pytorch", False, "here")  # it asks for no consent any more


def test_an_index_of_wheels_opens_them_for_the_hosts_that_they_fit(
        data: Path, mirror: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The form of Astral's index: names begin as the data say, the rest and the place are the index's."""
    shutil.copy(DATA / "sources.yml", data)
    before = yaml.safe_load((data / "sources.yml").read_text())
    page = mirror / "wheels" / "flash-attn"
    page.mkdir(parents=True)
    begins = "flash_attn-2.8.3.post1%2Bcu.13.0.torch.2.14-cp312-cp312"
    links = [f"../../files/{begins}-manylinux_2_27_x86_64.manylinux_2_28_x86_64.whl#sha256={digest(b'right')}",
             f"{begins}-manylinux_2_28_aarch64.whl#sha256={digest(b'arm')}", f"{begins}-manylinux_2_31_x86_64.whl",
             f"{begins.replace('post1', 'post2')}-manylinux_2_28_x86_64.whl#sha256={digest(b'another')}"]
    (page / "index.html").write_text("".join(f'<a href="{link}">x</a>' for link in links))
    monkeypatch.setattr(pins, "get", of_a_folder)
    asked = pins.parser().parse_args(["--data", str(data), "--wheels", f"{page.as_uri()}/", "--pythons", "3.12"])
    row = load_sources().flash_attn.others["astral"]
    assert [each.url for each in others(TORCH, "3.12", "2.39", [Version("12.0")])] == [""], "nobody has asked yet"
    pins.wheels(asked, "astral", row)
    after = yaml.safe_load((data / "sources.yml").read_text())
    made = after["source_flash_attn"]["others"]["astral"]
    (name,) = made["pinned"]
    assert name.endswith("manylinux_2_28_x86_64.whl") and made["pinned"][name] == digest(b"right")
    row.pinned.update(made["pinned"])
    row.addresses.update(made["addresses"])
    try:
        (found,) = others(TORCH, "3.12", "2.39", [Version("12.0")])
        assert (found.name, found.sha256) == (name, digest(b"right"))
        assert found.url == f"{mirror.as_uri()}/files/{name.replace('+', '%2B')}"
        assert others(TORCH, "3.12", "2.27", [Version("12.0")]) == others(TORCH, "3.12", "2.39", [Version("7.5")]) == []
    finally:
        row.pinned.clear()
        row.addresses.clear()
    made.update(pinned={}, addresses={})
    assert after == before, "nothing else has changed"


def of_a_folder(url: str, seconds: float, accept: str, own: str | None = None) -> object:
    """An answer from a file:// index, as web.get gives one."""
    page = Path(url.removeprefix("file://")) / "index.html"
    return type("Answer", (), {"body": page.read_bytes(), "kind": "text/html", "url": url})


def test_what_cannot_be_had_is_told_and_left_as_it_was(data: Path, mirror: Path, monkeypatch: pytest.MonkeyPatch,
                                                       capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(pins, "get", of_a_folder)
    (mirror / "channel" / "noarch" / "pip-25.0-0.conda").write_bytes(b"another")  # not what the channel's index says
    shutil.rmtree(mirror / "index" / TAG / "torchvision")
    (mirror / "index" / TAG / "torchvision").mkdir()
    (mirror / "index" / TAG / "torchvision" / "index.html").touch()
    before = {path: path.read_bytes() for path in data.rglob("*") if path.is_file()}
    assert run(data, mirror) == 1
    said = capsys.readouterr().err
    assert "is not the file that is wanted" in said and "has no torchvision 0.23.0+cu128 with a sha256" in said
    assert {path: path.read_bytes() for path in data.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("name", ["../../escaped-1-0.conda", "/escaped-1-0.conda", "x/y-1-0.conda", "$(id)-1-0.conda"])
def test_a_channel_names_no_place_of_this_machine(data: Path, mirror: Path, name: str, monkeypatch: pytest.MonkeyPatch,
                                                  capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(pins, "get", of_a_folder)
    monkeypatch.setattr(pins, "fetch", lambda *_: pytest.fail("it was fetched"))
    row = {"fn": name, "subdir": "noarch", "url": "file:///x", "sha256": "0" * 64}
    (mirror / "plan.json").write_text(json.dumps({"actions": {"FETCH": [row]}}))
    assert run(data, mirror) == 1
    said = capsys.readouterr().err
    assert "names a package" in said and "escaped" not in {path.name.partition("-")[0] for path in mirror.rglob("*")}


@pytest.mark.parametrize(("row", "said"), [
    ({"path": "../../etc/passwd"}, "name a package below a channel"),
    ({"path": "noarch/x-1-0.conda\nnoarch/y-1-0.conda"}, "name a package below a channel"),
    ({"path": "noarch/$(id)-1-0.conda"}, "name a package below a channel"), ({"sha256": "0" * 63}, "64 lower-case hex"),
    ({"bytes": "many"}, "whole number")])
def test_a_lock_of_ones_own_is_checked(tmp_path: Path, row: dict[str, object], said: str) -> None:
    file = {"path": "noarch/x-1-0.conda", "sha256": "0" * 64, "bytes": 1} | row
    (tmp_path / "conda.yml").write_text(yaml.safe_dump({"channel": "x", "source": "x", "pythons": {"3.10": [file]}}))
    with pytest.raises(RigError) as error:
        load_conda_lock(str(tmp_path / "conda.yml"))
    assert said in f"{error.value.what} {error.value.remedy}", error.value
