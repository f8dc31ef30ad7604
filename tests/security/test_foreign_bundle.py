"""A bundle that somebody else made: nothing of the controller's own files leaves by it, whatever lies in its folder."""

from __future__ import annotations

import hashlib
import json
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from qwen_rig import bundle, inside, knobs
from qwen_rig.errors import RigError
from qwen_rig.inside import Checked
from qwen_rig.knobs import stack_of
from qwen_rig.network import serve
from qwen_rig.network.archive import KEPT, Archive
from qwen_rig.network.collect import Collector
from qwen_rig.network.web import Unreachable
from qwen_rig.run.adapter import Failure
from qwen_rig.run.run import Run
from tests.network.desk import asked, login

SECRET = b"PRIVATE KEY of the controller"
SHA = hashlib.sha256(SECRET).hexdigest()
WHEEL = "wheels/x-1-py3-none-any.whl"
Plant = Callable[[Path], None]


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    bundle._load.cache_clear()
    yield
    bundle._load.cache_clear()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The bundle's folder, with a secret beside it."""
    (tmp_path / "id_ed25519").write_bytes(SECRET)
    (tmp_path / "b" / "wheels").mkdir(parents=True)
    return tmp_path / "b"


def manifest(folder: Path, *paths: str, **row: Any) -> None:
    """A manifest that names these paths as files like the secret."""
    rows = {path: {"sha256": "0" * 64, "bytes": len(SECRET), "from": "x"} | row for path in paths}
    bundle.write(folder, "standin", "3.10", rows)


def served(folder: Path, *paths: str) -> bytes:
    """All that a host which knows the token gets for these paths, quoted or not."""
    desk = serve.Desk(bundle.load(str(folder)), Archive(folder), Checked())
    return b"".join(body for path in paths for form in (path, path.replace("/", "%2F"), path.replace(".", "%2e"))
                    for status, _, body in [asked(desk, f"/{form}", Authorization=login(desk))] if status != 404)


def refused(folder: Path) -> str:
    """The one line that refuses it."""
    with pytest.raises(RigError) as caught:
        bundle.load(str(folder))
    line = str(caught.value)
    assert line.isprintable() and "qwen-rig bundle" in line
    return line


@pytest.mark.parametrize("path", [
    "../id_ed25519", "wheels/../../id_ed25519", "wheels/..", "wheels/.", "./wheels/x", "/etc/hostname", "wheels//x", "",
    "..%2fid_ed25519", "%2e%2e/id_ed25519", "wheels/%2e%2e", "..\\id_ed25519", "wheels/x\\..\\y", "wheels/x\0y",
    "wheels/x\ny", "wheels/\u2024\u2024", "\uff0e\uff0e/id_ed25519", "wheels/.x", "wheels/x/y", "other/x", "x",
    "manifest.json", "\u202e",
    "WHEELS/x", "wheels/ x", "wheels/x?y", "wheels/x#y", "wheels/\x1b[2J", "wheels/" + "x" * 300, "flash-attn/v/../x",
    "flash-attn/../keys/x", "apt/kept.json", "conda/../x", "conda/linux-64/../x"])
def test_a_path_that_is_none_of_a_bundles_is_one_line(path: str, folder: Path) -> None:
    manifest(folder, path)
    assert "which is no path of a bundle" in refused(folder)


def _link(folder: Path) -> None:
    (folder / WHEEL).symlink_to(folder.parent / "id_ed25519")


def _linked_folder(folder: Path) -> None:
    (folder.parent / "away").mkdir()
    (folder.parent / "away" / "x-1-py3-none-any.whl").write_bytes(SECRET)
    (folder / "wheels").rmdir()
    (folder / "wheels").symlink_to(folder.parent / "away")


def _link_inside(folder: Path) -> None:
    (folder / "wheels" / "other").write_bytes(SECRET)
    (folder / WHEEL).symlink_to("other")


def _folder(folder: Path) -> None:
    (folder / WHEEL).mkdir()


def _fifo(folder: Path) -> None:
    os.mkfifo(folder / WHEEL)


def _socket(folder: Path) -> None:
    here = Path.cwd()
    os.chdir(folder / "wheels")  # a socket's path is short
    try:
        socket.socket(socket.AF_UNIX).bind(WHEEL.rpartition("/")[2])
    finally:
        os.chdir(here)


def _device(folder: Path) -> None:
    try:
        os.mknod(folder / WHEEL, 0o600 | 0o020000, os.makedev(1, 5))  # /dev/zero
    except PermissionError:
        pytest.skip("a device takes root")


def _longer(folder: Path) -> None:
    (folder / WHEEL).write_bytes(SECRET + b"\n")


@pytest.mark.parametrize("plant", [_link, _linked_folder, _link_inside, _folder, _fifo, _socket, _device, _longer])
def test_what_is_no_regular_file_inside_is_one_line_before_any_host(plant: Plant, folder: Path) -> None:
    plant(folder)
    manifest(folder, WHEEL, sha256=SHA)
    assert refused(folder)


@pytest.mark.parametrize("plant", [_link, _linked_folder, _link_inside, _fifo, _folder])
def test_what_is_put_there_after_the_bundle_was_read_is_not_served(plant: Plant, folder: Path) -> None:
    (folder / WHEEL).write_bytes(SECRET)
    manifest(folder, WHEEL, sha256=SHA)
    assert SECRET in served(folder, WHEEL), "as it should be, it is served"
    (folder / WHEEL).unlink()
    plant(folder)
    assert SECRET not in served(folder, WHEEL)


@pytest.mark.parametrize("size", [len(SECRET), inside.SMALL + len(SECRET)])
def test_a_file_of_another_hash_is_not_served(size: int, folder: Path) -> None:
    """As by a hard link to a file that the bundle's maker cannot read: its hash is what he cannot know."""
    with open(folder.parent / "id_ed25519", "r+b") as file:
        file.truncate(size)
    os.link(folder.parent / "id_ed25519", folder / WHEEL)
    manifest(folder, WHEEL, bytes=size)
    assert SECRET not in served(folder, WHEEL)


@pytest.mark.parametrize(("spoil", "words"), [
    (lambda file: file.write_bytes(SECRET[::-1]), "its sha256 is another"), (Path.unlink, "is no longer there")])
def test_a_step_that_fails_by_a_spoilt_file_names_it(spoil: Callable[[Path], Any], words: str, folder: Path,
                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that was spoilt after the bundle was made, as long as before: uv says no more of it than a status."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder.parent / "cache"))
    (folder / WHEEL).write_bytes(SECRET)
    manifest(folder, WHEEL, sha256=SHA)
    host: Any = SimpleNamespace(name="h", data=SimpleNamespace(dict=dict))
    unused: Any = None
    run = Run(unused, list)
    desk = run.tunnels.desk(host, str(folder))
    spoil(folder / WHEEL)
    assert asked(desk, f"/{WHEEL}", Authorization=login(desk))[0] in (403, 404)
    run.report._failed(Failure(host, "Env", (), ("error: 403 Forbidden",)))
    assert WHEEL in run.report.cards["h"].what and words in run.report.cards["h"].what
    assert "qwen-rig bundle" in run.report.cards["h"].remedy


@pytest.mark.parametrize("row", [
    {"bytes": -1}, {"bytes": True}, {"bytes": 29.0}, {"bytes": "29"}, {"bytes": None}, {"bytes": 1 << 60},
    {"sha256": ""}, {"sha256": None}, {"sha256": SHA.upper()}, {"sha256": SHA[:-1]}, {"sha256": f"{SHA}\n"},
    {"sha256": [SHA]}])
def test_a_row_that_cannot_be_is_one_line(row: dict[str, Any], folder: Path) -> None:
    (folder / WHEEL).write_bytes(SECRET)
    manifest(folder, WHEEL, **{"sha256": SHA, **row})
    assert refused(folder)


@pytest.mark.parametrize("text", [
    "", "[]", "7", "{", "null", '{"form": 1}', "[" * 100_000, '{"form": 1, "stack": "s", "python": "3.10", "files": 7}',
    '{"form": 1, "stack": "s", "python": "3.10", "files": {"wheels/x": []}}', '{"form": 2, "files": {}}',
    '{"form": 1, "stack": "s\\u001b[2J", "python": "3.10", "files": {}}',
    '{"form": 1, "stack": ["s"], "python": "3.10", "files": {}}', '{"form": 1, "form": 1}',
    '{"\\u202e": 1, "\\u202e": 2}',
    '{"form": 1, "stack": "s", "python": "3.10", "files": {"wheels/x": {"sha256": "0", "sha256": "1", "bytes": 1}}}',
    '{"form": 1, "stack": "s", "python": "3.10", "lock_sha256": 7, "files": {}}', b"\xff\xfe", " " * (17 << 20)])
def test_a_manifest_that_is_none_is_one_line(text: str | bytes, folder: Path) -> None:
    (folder / "manifest.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    assert refused(folder)


@pytest.mark.parametrize("plant", [
    lambda folder: (folder / "manifest.json").symlink_to(folder.parent / "real.json"),
    lambda folder: os.mkfifo(folder / "manifest.json"), lambda folder: (folder / "manifest.json").mkdir()])
def test_a_manifest_that_is_no_file_is_one_line(plant: Plant, folder: Path) -> None:
    (folder.parent / "real.json").write_text(json.dumps({"form": 1, "stack": "s", "python": "3.10", "files": {}}))
    plant(folder)
    assert refused(folder)


@pytest.mark.parametrize(("made", "said"), [
    (("guide", "3.10", None), "is of stack guide for Python 3.10, and standin for 3.10 is wanted"),
    (("standin", "3.11", None), "is of stack standin for Python 3.11, and standin for 3.10 is wanted"),
    (("standin", "3.10", "0" * 64), "was made from another lock of stack standin"),
    (("standin", "3.10", "the lock's"), ""), (("standin", "3.10", None), "")])
def test_it_is_of_the_stack_the_lock_and_the_python_that_are_wanted(made: tuple[str, str, str | None], said: str,
                                                                     folder: Path) -> None:
    stack, python, lock = made
    bundle.write(folder, stack, python, {}, stack_of("standin").lock_sha256 if lock == "the lock's" else lock)
    data = {**knobs.defaults(), "stack": "standin", "python": "3.10", "bundle": str(folder)}
    if not said:
        assert knobs.read(data, "test").bundle == str(folder)
        return
    with pytest.raises(RigError, match=said) as caught:
        knobs.read(data, "test")
    assert f"qwen-rig bundle {folder} --data stack=standin --data python=3.10" in str(caught.value)


@pytest.mark.parametrize("settled", [False, True])
@pytest.mark.parametrize("in_place", [True, False])
def test_a_file_that_is_written_to_while_it_is_served_ends_short_or_as_it_was(
        settled: bool, in_place: bool, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No mix of bytes is ever a whole answer."""
    if settled:  # as if the file were older than its file system's clock is coarse
        monkeypatch.setattr(inside, "SETTLED_S", 0)
    good, evil = b"g" * (inside.SMALL + 5 * inside.PIECE), b"e" * (inside.SMALL + 5 * inside.PIECE)
    (folder / WHEEL).write_bytes(good)
    manifest(folder, WHEEL, sha256=hashlib.sha256(good).hexdigest(), bytes=len(good))
    pieces = []

    class Slow(Checked):
        """Somebody writes when the first piece is out."""

        @contextmanager
        def opened(self, *arguments: Any) -> Iterator[inside.Content]:
            with super().opened(*arguments) as content:
                piece = content.piece

                def watched(start: int, end: int) -> bytes:
                    got = piece(start, end)
                    pieces.append(len(got))
                    if len(pieces) == 1:
                        _overwrite(folder / WHEEL, evil, in_place)
                    return got
                monkeypatch.setattr(content, "piece", watched)
                yield content

    desk = serve.Desk(bundle.load(str(folder)), Archive(folder), Slow())
    status, _, body = asked(desk, f"/{WHEEL}", Authorization=login(desk))
    assert status == 200 and len(pieces) >= 1 and set(body) == {ord("g")}
    assert body == good or (settled and len(body) < len(good)), "short: no client takes it for whole"
    if in_place:
        assert asked(desk, f"/{WHEEL}", Authorization=login(desk))[0] == 403


def _overwrite(path: Path, data: bytes, in_place: bool) -> None:
    if in_place:
        with open(path, "r+b") as file:
            file.write(data)
    else:
        path.with_name("new").write_bytes(data)
        path.with_name("new").replace(path)


# Nobody answers there: what was kept is good enough.
BASE, INDEX = "http://127.0.0.1:9/debian", "dists/stable/InRelease"


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("plant", [
    lambda index, secret: index.symlink_to(secret), os.mkfifo, lambda index, secret: os.link(secret, index),
    lambda index, secret: index.mkdir()])
def test_apts_part_of_its_folder_hands_out_nothing_else_either(kept: bool, plant: Callable[..., None],
                                                               folder: Path) -> None:
    index = folder / "apt" / "http" / "127.0.0.1:9" / "debian" / INDEX
    index.parent.mkdir(parents=True)
    plant(*([index] if plant is os.mkfifo else [index, folder.parent / "id_ed25519"]))
    if kept:
        (folder / KEPT).write_text(json.dumps({str(index.relative_to(folder)): "0" * 64}))
    manifest(folder)
    desk = serve.Desk(bundle.load(str(folder)), Archive(folder), Checked())
    desk.archive.allow([BASE], named=True)
    status, _, body = asked(desk, f"/apt/{BASE.replace('://', '/')}/{INDEX}", Authorization=login(desk))
    assert status in (403, 502) and SECRET not in body


@pytest.mark.parametrize("name", ["InRelease", "InRelease.part"])
@pytest.mark.parametrize("plant", [lambda path, target: path.symlink_to(target),
                                   lambda path, target: os.link(target, path)])
def test_nothing_is_written_through_it(name: str, plant: Callable[[Path, Path], None], folder: Path) -> None:
    """What was fetched goes beside a link, never into what the link leads to."""
    victim = folder.parent / "id_ed25519"
    at = folder / "apt" / "http" / "127.0.0.1:9" / "debian" / "dists" / "stable"
    at.mkdir(parents=True)
    plant(at / name, victim)
    archive = Archive(folder)
    archive.allow([BASE], named=True)
    with pytest.raises((Unreachable, inside.Refused)):
        archive.file(f"{BASE.replace('://', '/')}/{INDEX}")
    assert victim.read_bytes() == SECRET


@pytest.mark.parametrize("path", ["wheels/../../victim", "wheels/..%2fvictim", "conda/noarch/../../../victim",
                                  "/victim"])
def test_a_name_out_of_an_index_leads_nowhere_when_a_bundle_is_made(path: str, folder: Path) -> None:
    with pytest.raises(Unreachable, match="has a name that no bundle can hold"):
        _collector(folder)._take(path, (folder.parent / "id_ed25519").as_uri(), None, None)
    assert sorted(each.name for each in folder.parent.rglob("*")) == ["b", "id_ed25519", "wheels"]


def test_a_bundle_that_is_made_again_is_not_written_through_links(folder: Path) -> None:
    (folder / WHEEL).symlink_to(folder.parent / "id_ed25519")
    with pytest.raises(inside.Refused):
        _collector(folder)._take(WHEEL, "https://127.0.0.1:9/x", None, None)
    (folder / "manifest.json").symlink_to(folder.parent / "id_ed25519")
    with pytest.raises(inside.Refused):
        bundle.write(folder, "standin", "3.10", {})
    assert (folder.parent / "id_ed25519").read_bytes() == SECRET


def _collector(folder: Path) -> Collector:
    return Collector(folder, knobs.read({**knobs.defaults(), "stack": "standin", "python": "3.10"}, "test"), print)
