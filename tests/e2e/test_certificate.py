"""deploy/certify.py over real SSH. The card is emulated and the stand-in stack has no torch: what can be measured of
such a host is, and what can't is `not run`, never a pass."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import HANG_S

from .conftest import Lab

pytestmark = pytest.mark.testbed


@pytest.fixture(scope="module")
def lab(bed: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """One host with an emulated H100 and the stand-in stack's env; one with the same card and no env."""
    from testbed import HostSpec

    specs = [HostSpec(name, gpu="h100", driver="580.95.05:open", nouveau=False) for name in ("card-01", "bare-01")]
    made = Lab(bed, bed.up(specs), tmp_path_factory.mktemp("certificates"), cuda_toolkit="never", flash_attn="off",
               verification="never")
    ready = made.deploy("-y", "--limit", "card-01")
    assert ready.code == 0, ready.stderr
    yield made
    bed.down()


def test_a_certificate_of_an_emulated_card_is_partial_and_compared_with_the_last(lab: Lab, tmp_path: Path) -> None:
    state = {"XDG_STATE_HOME": str(tmp_path)}
    dry = lab.pyinfra("--dry", "deploy/certify.py", "--limit", "card-01", **state)
    assert dry.code == 0 and "Traceback" not in dry.stderr, dry.stderr
    assert not (tmp_path / "qwen-rig" / "certificates").exists(), "a dry run measures nothing"
    first = lab.pyinfra("-y", "deploy/certify.py", "--limit", "card-01", **state)
    assert first.code == 0, first.stderr
    assert " end certify " in lab.on("card-01", "cat /var/lib/qwen-rig/jobs/journal"), "a job, that outlives us"
    assert "EMULATED by the testbed" in first.stderr and "✓ certified" in first.stderr
    kept = sorted((tmp_path / "qwen-rig" / "certificates").glob("GPU-*/*.json"))
    made = json.loads(kept[0].read_text())
    assert made["overall"] == "partial" and made["emulated"] is True and kept[0].parent.name == made["uuid"]
    states = {check["name"]: check["status"] for check in made["checks"]}
    assert [states[name] for name in ("identity", "driver", "other_users")] == ["pass"] * 3, made["checks"][:5]
    torch = [check for check in made["checks"] if check["name"] in (
        "torch_build", "first_kernel", "matmul", "bandwidth", "memory", "sdpa", "training", "largest_batch", "pcie")]
    assert {check["status"] for check in torch} == {"not_run"}, "what a GPU must do is never a pass without one"
    assert all(check["why"].startswith("no GPU") for check in torch)

    second = lab.pyinfra("-y", "deploy/certify.py", "--limit", "card-01", **state)
    assert second.code == 0 and "since the last: no change since" in second.stderr, second.stderr
    assert len(list((tmp_path / "qwen-rig" / "certificates").glob("GPU-*/*.json"))) == 2


def test_no_env_is_one_line_and_the_others_go_on(lab: Lab, tmp_path: Path) -> None:
    both = lab.pyinfra("-y", "deploy/verify.py", XDG_STATE_HOME=str(tmp_path))
    assert both.code == 1 and "Traceback" not in both.stderr
    assert both.stderr.count("qwen-rig: deploy/verify.py is now deploy/certify.py") == 1, "once, not once a host"
    assert "there is no env qwen-train on this host" in both.stderr and "run deploy/5090.py on it first" in both.stderr
    assert len(list((tmp_path / "qwen-rig" / "certificates").glob("GPU-*/*.json"))) == 1


def test_a_failed_gate_ends_rig_certify_with_4(lab: Lab, tmp_path: Path) -> None:
    """With the guide's stack wanted, an env without torch fails, and a second card that is on the bus and silent."""
    import os
    import subprocess
    import sys

    lab.on("card-01", "cd /sys/bus/pci/devices && cp -a 0000:01:00.0 0000:07:00.0")
    done = subprocess.run([sys.executable, "-m", "qwen_rig", "certify", "-i", "inventories/lab.py", "--limit",
                           "card-01", "--data", "stack=guide", "--data", "verification_gpu=true"],
                          capture_output=True, text=True,
                          cwd=Path(__file__).parents[2], stdin=subprocess.DEVNULL, timeout=HANG_S,
                          env={**os.environ, "LAB_HOSTS": str(lab.file), "XDG_STATE_HOME": str(tmp_path),
                               "COLUMNS": "160"})
    assert done.returncode == 4, done.stderr
    said = " ".join((done.stdout + done.stderr).split())
    assert "certificate failed: GPU at 0000:07:00.0 doesn't answer nvidia-smi; " in said, done.stderr
    assert "of stack standin: its lock isn't that of guide" in said, done.stderr
    kept, = (tmp_path / "qwen-rig" / "certificates").glob("GPU-*/*.json")
    assert json.loads(kept.read_text())["environment"]["stack"] == "standin", "of the env that is there"
    assert "torch is not installed" in done.stdout and "Traceback" not in done.stderr
