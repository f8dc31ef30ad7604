"""The host's programs, run for real: in an env made from the stand-in's lock, and in one that has nothing."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

import pytest

from qwen_rig.catalog.stack import load_stack
from tests import HANG_S

HOST = Path(__file__).parents[2] / "qwen_rig" / "host"
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
STANDIN, GUIDE = load_stack("standin"), load_stack("guide")

pytestmark = pytest.mark.skipif(PYTHON not in STANDIN.pythons, reason=f"the lock isn't for Python {PYTHON}")


@pytest.fixture(scope="module")
def env(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The python of a real env with exactly the stand-in's lock, by pip with --require-hashes."""
    folder = tmp_path_factory.mktemp("env")
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    assert STANDIN.lock is not None
    done = subprocess.run([python, "-m", "pip", "install", "-q", "--require-hashes", "-r", STANDIN.lock],
                          capture_output=True, text=True)
    if done.returncode and "hash" not in done.stderr.lower():
        pytest.skip(f"no package index from here: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    return python


def verify(python: Path | str, expect: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    record = tmp_path / "verify.json"
    done = subprocess.run([python, HOST / "verify.py", "--expect", json.dumps(expect), "--record", record,
                           "--fingerprint", "f1"], capture_output=True, text=True, timeout=HANG_S)
    assert done.returncode == 0, done.stderr
    made: dict[str, Any] = json.loads(record.read_text())
    assert json.loads(done.stdout) == made and made["fingerprint"] == "f1"
    return made


def states(made: dict[str, Any]) -> dict[str, str]:
    return {check["name"]: check["status"] for check in made["checks"]}


def test_stand_in_env_is_partial_never_pass(env: Path, tmp_path: Path) -> None:
    made = verify(env, STANDIN.expect(PYTHON), tmp_path)
    assert made["overall"] == "partial" and made["standin"] is True
    told = states(made)
    assert {name for name, status in told.items() if status == "pass"} == {"python", "packages", "import"}
    assert {status for name, status in told.items() if name not in ("python", "packages", "import")} == {"not_run"}
    assert all(check["why"] == "stack standin has no torch" for check in made["checks"] if check["status"] == "not_run")


def test_another_version_and_a_missing_package_fail(env: Path, tmp_path: Path) -> None:
    expect = STANDIN.expect(PYTHON)
    expect["packages"].update({"six": "9.9", "no-such-package": "1.0"})
    expect["import_gate"] = "from attrs import no_such_name"
    made = verify(env, expect, tmp_path)
    assert made["overall"] == "fail"
    checks = {check["name"]: check for check in made["checks"]}
    assert checks["packages"]["why"] == "no-such-package absent, wanted 1.0; six 1.17.0, wanted 9.9"
    assert checks["import"]["status"] == "fail" and "no_such_name" in checks["import"]["why"]


def test_a_crash_costs_one_check(env: Path, tmp_path: Path) -> None:
    made = verify(env, {**STANDIN.expect(PYTHON), "import_gate": "import os; os.abort()"}, tmp_path)
    checks = {check["name"]: check for check in made["checks"]}
    assert checks["import"]["status"] == "fail" and "ended with -6" in checks["import"]["why"]
    assert checks["python"]["status"] == checks["packages"]["status"] == "pass"


def test_a_hang_costs_one_check(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(HOST))
    program = importlib.import_module("verify")
    monkeypatch.setitem(program.CHECKS, "import", (None, 1, False))
    found = program.run_checks(["import", "python"], {"python": PYTHON, "import_gate": "import time; time.sleep(60)"})
    assert found["import"]["status"] == "fail" and found["import"]["why"] == "no end after 1 s"
    assert found["python"]["status"] == "pass"


@pytest.mark.parametrize("errors", [[float("nan")], [0.001, float("nan")], [float("nan"), 0.001], [0.001, 0.5]])
def test_a_wrong_product_is_the_worst_wherever_it_stands(monkeypatch: pytest.MonkeyPatch, errors: list[float]) -> None:
    monkeypatch.syspath_prepend(str(HOST))
    verify = importlib.import_module("verify")
    assert verify.judged(verify.largest(errors) < verify.BF16_ERROR, "", "", "wrong")["status"] == "fail"


def test_guide_expected_where_there_is_no_torch(env: Path, tmp_path: Path) -> None:
    made = verify(env, GUIDE.expect(PYTHON, gpu=False), tmp_path)
    told = states(made)
    assert made["overall"] == "fail" and told["python"] == "pass"
    assert {told[name] for name in told if name != "python"} == {"fail"}
    torch = next(check for check in made["checks"] if check["name"] == "torch")
    assert torch["why"] == "torch is not installed"


def test_record_that_cannot_be_written(env: Path) -> None:
    done = subprocess.run([env, HOST / "verify.py", "--expect", json.dumps(STANDIN.expect(PYTHON)), "--record",
                           "/no/such/folder/verify.json"], capture_output=True, text=True, timeout=HANG_S)
    assert done.returncode == 1 and "can't be written" in done.stderr and "Traceback" not in done.stderr


def test_flash_attn_check_without_flash_attn(env: Path) -> None:
    done = subprocess.run([env, HOST / "flash_attn_check.py"], capture_output=True, text=True, timeout=HANG_S)
    assert done.returncode == 1
    assert json.loads(done.stdout)["status"] == "fail"


@pytest.mark.parametrize("program", ["verify.py", "flash_attn_check.py"])
def test_help_needs_nothing(env: Path, program: str) -> None:
    assert subprocess.run([env, HOST / program, "--help"], capture_output=True, timeout=HANG_S).returncode == 0
