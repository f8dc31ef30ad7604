"""What the project's own data came to is kept for the next run, and no longer than it holds."""

from __future__ import annotations

import importlib
import os
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from qwen_rig import homes
from qwen_rig.catalog import datafile, kept, yamlfile

NOBODY = 65534


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A data file of a package of its own, whose user has a cache of his own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(kept, "PACKAGE", tmp_path)
    for name in ("data", "catalog"):
        (tmp_path / name).mkdir()
    (tmp_path / "data" / "x.yml").write_text("1")
    kept._state.cache_clear()
    yield tmp_path / "data" / "x.yml"
    kept._state.cache_clear()


def once(data: Path, made: list[str]) -> str:
    """The file's text, and in `made` that it was read."""
    def make() -> str:
        made.append(data.read_text())
        return made[-1]

    return kept.kept(data, "x", make)


def pickled() -> Path:
    [found] = (homes.cache() / "catalog").glob("*/x.pickle")
    return found


def test_it_is_made_once_and_anew_when_the_data_change(data: Path) -> None:
    made: list[str] = []
    assert [once(data, made), once(data, made)] == ["1", "1"] and made == ["1"]
    assert pickled().stat().st_mode & 0o777 == 0o600 and pickled().parent.stat().st_mode & 0o777 == 0o700
    data.write_text("2")
    os.utime(data, ns=(1, 1))  # the same size; another time
    kept._state.cache_clear()  # a run looks once
    assert once(data, made) == "2" and once(data, made) == "2" and made == ["1", "2"]


def test_several_checkouts_in_turn_each_find_what_they_kept_and_no_more_than_some_are_kept(data: Path) -> None:
    def edition(number: int) -> str:
        data.write_text(str(number))
        os.utime(data, ns=(number, number))
        kept._state.cache_clear()
        return once(data, made)

    made: list[str] = []
    assert [edition(1), edition(2), edition(1), edition(2)] == ["1", "2", "1", "2"] and made == ["1", "2"]
    for number in range(3, 20):
        edition(number)
    assert len(list((homes.cache() / "catalog").iterdir())) == kept.STATES
    made.clear()
    assert edition(19) == "19" and not made


def test_a_form_that_has_changed_is_not_given_what_an_older_one_made(
        data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one that lies outside catalog/, as plan/place.py's."""
    monkeypatch.syspath_prepend(str(tmp_path))
    data.write_text("key: word\n")
    source, read = tmp_path / "form_of_a_test.py", []
    source.write_text("from dataclasses import dataclass\nfrom qwen_rig.catalog.datafile import Row, Text\n"
                      "@dataclass(frozen=True)\nclass Form(Row):\n    key: Text\n")
    form = importlib.import_module("form_of_a_test").Form
    monkeypatch.setattr(datafile, "read", lambda path: read.append(path) or yamlfile.read(path))  # type: ignore[func-returns-value]
    assert datafile.load(data, form).key == datafile.load(data, form).key == "word" and len(read) == 1
    os.utime(source, ns=(1, 1))
    assert datafile.load(data, form).key == "word" and len(read) == 2


def test_a_file_of_the_users_own_is_read_each_time(data: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.yml"
    own.write_text("3")
    made: list[str] = []
    assert [once(own, made), once(own, made)] == ["3", "3"] and made == ["3", "3"]


class Planted:
    """What runs when it is unpickled."""

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return os.system, ("touch canary",)


@pytest.mark.parametrize("how", ["others_write", "others_own", "link", "torn"])
def test_what_is_not_this_users_alone_is_left_aside(data: Path, tmp_path: Path, how: str,
                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    if how == "others_own" and os.geteuid() != 0:
        pytest.skip("only root gives a file away")
    monkeypatch.chdir(tmp_path)
    made: list[str] = []
    once(data, made)
    path = pickled()
    path.write_bytes(pickle.dumps(Planted())[:20 if how == "torn" else None])
    if how == "others_write":
        path.chmod(0o666)
    elif how == "others_own":
        os.chown(path, NOBODY, NOBODY)
    elif how == "link":
        path.rename(tmp_path / "planted")
        path.symlink_to(tmp_path / "planted")
    assert once(data, made) == "1" and made == ["1", "1"]
    assert not (tmp_path / "canary").exists()
    once(data, made)
    assert made == ["1", "1"]  # made good
    assert path.stat().st_uid == os.geteuid() and path.stat().st_mode & 0o777 == 0o600


def test_without_a_place_it_is_made(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/nowhere")
    made: list[str] = []
    assert once(data, made) == "1" and made == ["1"]
