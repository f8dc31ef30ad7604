"""The doctor over real SSH: hosts whose (emulated) GPU doesn't work, each for its own reason."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests import HANG_S

from .conftest import REPO, Lab

pytestmark = pytest.mark.testbed


def _rig(lab: Lab, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "qwen_rig", "doctor", "-i", str(lab.file), *arguments],
                          cwd=REPO, text=True,
                          stdin=subprocess.DEVNULL, capture_output=True, timeout=HANG_S)


def test_each_host_gets_its_own_cause_in_one_exec(bed: Any, tmp_path: Path) -> None:
    from testbed import HostSpec

    names = {"flavour": "no-devices-proprietary-modules", "nouveau": "nouveau-holds-the-card",
             "bare": "nvidia-smi-missing", "sound": None}
    lab = Lab(bed, bed.up([
        HostSpec("flavour", driver="580.95.05:proprietary"), HostSpec("nouveau", nouveau=True), HostSpec("bare"),
        HostSpec("sound", driver="580.95.05:open")]), tmp_path)
    try:
        counted = {name: bed.execs(name) for name in names}
        done = _rig(lab, "--json", *names)
        assert done.returncode == 1, done.stderr
        told = json.loads(done.stdout)
        assert {name: [f["name"] for f in told[name]["findings"]] for name in names} == {
            name: [cause] if cause else [] for name, cause in names.items()}
        assert {name: bed.execs(name) - n for name, n in counted.items()} == dict.fromkeys(names, 1)
        alone = _rig(lab, "sound")
        assert alone.returncode == 0 and "no known problem was found" in alone.stdout and alone.stderr == ""
        nobody = _rig(lab, "nobody")
        assert nobody.returncode == 1 and "there are: " in nobody.stderr and "Traceback" not in nobody.stderr
    finally:
        bed.down()
