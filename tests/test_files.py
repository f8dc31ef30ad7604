"""Files that two runs write at the same time: by real shells, both succeed and each file is whole."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

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
