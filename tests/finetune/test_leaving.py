"""What goes from a host: what is named, nothing that a link leads to, nothing of another's; a second run: nothing."""

from __future__ import annotations

import fcntl
import subprocess
from pathlib import Path

import pytest

from qwen_rig.finetune.leaving import Thing, read, words
from qwen_rig.program import load

REMOVE = load("host/remove.sh")


def run(folder: Path, act: str, *things: Thing) -> tuple[int, str]:
    call = REMOVE(*words(things), act=act, jobs=str(folder / "jobs"), lines_of=str(folder / "environments.txt"))
    done = subprocess.run(["sh", "-c", call.text], input=call.stdin(), text=True, capture_output=True)
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """A folder with our things and others'."""
    for name in ("env/lib", "others", "jobs/train-a", "empty", "full"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("env/lib/a.py", "others/thesis.txt", "full/x", "jobs/train-a/lock"):
        (tmp_path / name).write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "others")
    (tmp_path / "guard").write_text("# Managed by qwen-rig; changes here are undone by its next run.\nx\n")
    (tmp_path / "theirs").write_text("# mine\n")
    (tmp_path / "environments.txt").write_text(f"/home/me/env\n{tmp_path / 'env'}\n")
    return tmp_path


def things(host: Path) -> list[Thing]:
    kinds = {"env": "tree", "link": "tree", "guard": "ours", "theirs": "ours", "empty": "empty", "full": "empty",
             "nothing": "tree", "no/such": "file"}
    return [Thing("line", str(host / "env"), ""), *(Thing(kind, str(host / name), "why")
                                                    for name, kind in kinds.items())]


def test_what_is_ours_goes_and_nothing_else(host: Path) -> None:
    asked = things(host)
    code, said = run(host, "look", *asked)
    found, busy = read(said, asked)
    assert code == 0 and not busy and (host / "env/lib/a.py").exists(), said
    assert [Path(each.path).name for each in found] == ["env", "env", "link", "guard"]
    code, said = run(host, "remove", *asked)
    assert code == 0 and [each.path for each in read(said, asked)[0]] == [each.path for each in found], said
    left = sorted(str(path.relative_to(host)) for path in host.rglob("*") if not path.is_dir())
    assert left == ["environments.txt", "full/x", "jobs/train-a/lock", "others/thesis.txt", "theirs"]
    assert (host / "environments.txt").read_text() == "/home/me/env\n" and not (host / "empty").exists()
    assert run(host, "remove", *asked) == (0, ""), "a second run removes nothing"


def test_nothing_goes_while_a_job_is_at_work(host: Path) -> None:
    asked = things(host)
    with (host / "jobs/train-a/lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for act in ("look", "remove"):
            _, said = run(host, act, *asked)
            assert read(said, asked)[1] == ["train-a"] and (host / "env/lib/a.py").exists()


def test_what_a_host_adds_to_the_list_is_not_told() -> None:
    asked = [Thing("tree", "/a", "")]
    assert read("tree 5 /a\ntree 5 /etc\nfile 1 /a\ntree x /a\n\n", asked) == ([Thing("tree", "/a", "", False, 5)], [])
