"""pyinfra's own table of results, folded: through pyinfra's command line, on this machine."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

CONFIG = "from qwen_rig.run import boundary\n\nboundary.fold()\n"
DEPLOY = """
from pyinfra.operations import files, server

files.directory(name="Nothing to do", path="{folder}", present=True)
server.shell(name="Does something", commands=["true"])
server.shell(name="Goes wrong", commands=["exit 7"], _ignore_errors=True)
"""


def results(folder: Path, *options: str) -> list[str]:
    """What pyinfra says after "Results:"."""
    (folder / "config.py").write_text(CONFIG)
    (folder / "deploy.py").write_text(DEPLOY.format(folder=folder))
    ran = subprocess.run([Path(sys.executable).with_name("pyinfra"), "-y", *options, "@local", "deploy.py"],
                         cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert "Results:" in ran.stderr, ran.stderr
    assert "Detected changes" not in ran.stderr
    return ran.stderr.split("Results:")[1].splitlines()


def test_what_changed_nothing_is_left_out_and_what_went_wrong_never(tmp_path: Path) -> None:
    said = results(tmp_path)
    assert not any("Nothing to do" in line for line in said), said
    assert [line.split()[-4:] for line in said if "Does something" in line] == [["1", "1", "-", "-"]], said
    assert [line.split()[-4:] for line in said if "Goes wrong" in line] == [["1", "-", "1", "-"]], said
    assert [line.split()[-4:] for line in said if "Grand total" in line] == [["3", "1", "1", "1"]], said
    assert any("Nothing to do" in line for line in results(tmp_path, "-v")), "-v shows every row"
