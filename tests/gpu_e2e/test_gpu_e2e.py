"""The run on a real card, as far as a machine without one can show: repacked wheels install by their lock; parts end
truthfully and go on; what is missing is one line."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gpu_e2e import parts, repack
from gpu_e2e.__main__ import main
from gpu_e2e.machine import Machine
from gpu_e2e.report import write


def test_what_is_installed_installs_again_by_hash(tmp_path: Path) -> None:
    """A wheel that was brought along goes before the machine's own; pip takes both by the lock from the index."""
    files, lock, kit = tmp_path / "site/files", tmp_path / "lock.txt", tmp_path / "kit"
    kit.mkdir()
    brought = repack.pack("click", kit)
    subprocess.run([sys.executable, repack.__file__, files, lock, kit, "Click", "jinja2"], check=True)
    names = [line.split("==")[0] for line in lock.read_text().splitlines()]
    assert names == ["click", "jinja2", "markupsafe"] and brought.sha256 in lock.read_text()
    made = subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--require-hashes", "--index-url",
                           f"file://{tmp_path}/site/simple", "--target", str(tmp_path / "env"), "-r", str(lock)],
                          capture_output=True, text=True, check=False, env={"PIP_CONFIG_FILE": "/dev/null"})
    assert made.returncode == 0, made.stderr
    assert subprocess.run([sys.executable, "-S", "-c", "import click, jinja2; print(jinja2.__file__)"], check=True,
                          capture_output=True, text=True, env={"PYTHONPATH": str(tmp_path / "env")},
                          ).stdout.startswith(str(tmp_path / "env"))


def test_what_neither_machine_nor_kit_has_is_named() -> None:
    with pytest.raises(LookupError, match="neither the machine nor the kit has nosuch"):
        repack.closure(["a"], {"a": ["b[extra]>1"], "b": ["nosuch; extra == 'extra'", "other; extra == 'another'"]})


def test_parts_end_truthfully_and_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(tmp_path, tmp_path, sys.executable, [], {})
    machine.product.mkdir()
    ends: list[type[Exception] | None] = [parts.GoesOn, None, parts.Failed]

    def one(run: parts.Runner) -> None:
        run.command("sh", "-c", "echo '<said>'")
        if ends and (end := ends.pop(0)):
            raise end("for a reason")

    def wrong(run: parts.Runner) -> None:
        run.command("sh", "-c", "exit 3")

    monkeypatch.setattr(parts, "PARTS", {"one": one, "wrong": wrong})
    assert [parts.go(machine, "one", anew=False).state for _ in range(3)] == ["goes on", "done", "done"]
    assert len(ends) == 1, "a part that is done isn't run again"
    assert parts.go(machine, "one", anew=True).state == "failed"
    found = parts.go(machine, "wrong", anew=False)
    assert found.state == "failed" and "exit 3" in found.why
    made = write(tmp_path, "abc", ["one", "wrong"])
    assert [part["state"] for part in made["parts"]] == ["failed", "failed"]
    assert json.loads((tmp_path / "report.json").read_text()) == made
    page = (tmp_path / "report.html").read_text()
    assert "&lt;said&gt;" in page and "<said>" not in page


@pytest.mark.parametrize(("words", "said"), [(["run"], "no kit in"), (["run", "nosuch"], "no part nosuch")])
def test_what_is_missing_is_one_line(words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str],
                                     ) -> None:
    try:
        code = main([*words, "--kit", str(tmp_path), "--work", str(tmp_path / "work")])
    except SystemExit as end:
        code = int(end.code or 0)
    assert code and said in capsys.readouterr().err and not (tmp_path / "work").exists()


RAN = """--> Starting operation: Sources | Reach what will be fetched 
    [card] {0}

--> Results:
    Operation                                Hosts   Success   Error   No Change   
    Sources | Reach what will be fetched     1       {1}         -       {2}           
    Grand total                              12      {1}         -       {2}           
"""


def test_a_second_run_is_told_from_one_that_changes_by_pyinfras_table(tmp_path: Path) -> None:
    run = parts.Runner(Machine(tmp_path, tmp_path, sys.executable, [], {}), parts.Part("again"))
    assert parts.unchanged(run, RAN.format("No changes", "-", "1")) == 1
    for said in (RAN.format("Success", "1", "-"), "", "No hosts remaining"):
        with pytest.raises(parts.Failed, match="without changes"):
            parts.unchanged(run, said)


def test_a_part_ends_with_its_call_and_what_is_begun_is_killed(tmp_path: Path) -> None:
    machine = Machine(tmp_path, tmp_path, sys.executable, [], {}, until=time.monotonic() + 60)
    machine.product.mkdir()
    run = parts.Runner(machine, parts.Part("one"))
    assert run.left() < 61
    with run.begun("sh", "-c", "echo said; exec sleep 600", good=(-9,)) as one:
        time.sleep(0.2)
    assert one.returncode == -9 and run.part.commands[-1].said == "said\n"
    with pytest.raises(parts.Failed, match="exit 3"), run.begun("sh", "-c", "exit 3", good=(-9,)) as one:
        one.wait()
