"""Files that two runs write at the same time, here and by a host's shell: both succeed and each file is whole."""

from __future__ import annotations

import os
import stat
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from qwen_rig import atomic
from qwen_rig.program import Call
from qwen_rig.run.files import written

SIZE = 300_000  # bytes: several writes each, so that two writers would mix


def write(call: Call, piped: str) -> subprocess.Popen[str]:
    shell = subprocess.Popen(["sh", "-c", call.text], stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert shell.stdin is not None
    shell.stdin.write(call.stdin(piped))
    shell.stdin.close()
    return shell


@pytest.mark.parametrize("there", [True, False], ids=["the folder is there", "it is not"])
def test_runs_at_once_all_succeed_and_leave_whole_files(tmp_path: Path, there: bool) -> None:
    folder = tmp_path / "an env" / ".rig"
    folder.parent.mkdir()
    if there:
        folder.mkdir()
    for _ in range(5):
        runs = [write(written(str(folder), {"a.yaml": f"{run}\n" * 50, "b": f"{run}"}, piped="c.py"),
                      str(run) * (SIZE + run)) for run in range(8)]
        said = [(shell.wait(), shell.stderr.read() if shell.stderr else "") for shell in runs]
        assert said == [(0, "")] * 8
        whole = (folder / "c.py").read_text()
        assert whole == whole[0] * (SIZE + int(whole[0]))
        assert sorted(path.name for path in folder.iterdir()) == ["a.yaml", "b", "c.py"], "nothing else is left"


def test_no_env_is_made_of_a_folder(tmp_path: Path) -> None:
    shell = write(written(str(tmp_path / "gone" / ".rig"), {"b": "x"}), "")
    assert shell.wait() != 0
    assert list(tmp_path.iterdir()) == []


def test_writers_at_once_leave_one_whole_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "kept" / "file.json"
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda run: atomic.write(path, str(run) * SIZE, 0o600, 0o700), range(8)))
    text = path.read_text()
    assert text == text[0] * SIZE and list(path.parent.iterdir()) == [path]
    assert [stat.S_IMODE(each.stat().st_mode) for each in (path, path.parent)] == [0o600, 0o700]


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(OSError, match="disk"), atomic.replacing(path) as new:
        new.write_text("half")
        raise OSError("disk full")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
    with pytest.raises(FileNotFoundError):
        atomic.write(tmp_path / "none" / "file", "new")


def test_a_link_stays_and_what_is_no_file_is_not_replaced(tmp_path: Path) -> None:
    real, link, pipe = tmp_path / "real", tmp_path / "link", tmp_path / "pipe"
    link.symlink_to(real)
    atomic.write(link, "new")
    assert link.is_symlink() and real.read_text() == "new"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    atomic.write(pipe, b"told")
    assert os.read(reader, 9) == b"told" and stat.S_ISFIFO(pipe.stat().st_mode)
    os.close(reader)
