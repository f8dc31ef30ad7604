"""benchmarks/training.py where there is no torch: what it would measure, and how it tells it. It at work: marked real
in test_train_qwen.py."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import training
from tests import HANG_S

PROGRAM = Path(training.__file__)


@pytest.mark.parametrize(("cuda", "capability", "runs"), [
    (True, (9, 0), {("sdpa", "bf16"), ("sdpa", "tf32"), ("sdpa", "fp32"), ("flash_attention_2", "bf16")}),
    (True, (7, 5), {("sdpa", "bf16"), ("sdpa", "fp32")}),
    (False, None, {("sdpa", "bf16"), ("sdpa", "fp32")}),
])
def test_what_can_be_measured_is_and_the_rest_has_a_reason(cuda: bool, capability: tuple[int, int] | None,
                                                           runs: set[tuple[str, str]],
                                                           monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())  # as if flash-attn were installed
    rows = training.rows_wanted(cuda, capability)
    assert len(rows) == 6 and {row[:2] for row in rows if not row[2]} == runs


def test_the_table_compares_with_fp32_and_never_fills_a_row_that_was_not_run() -> None:
    rows = [{"attention": "sdpa", "precision": name, "runs": times, "seconds_a_step": seconds, "peak_mib": 900,
             "tokens_a_second": seconds and 8192 / seconds, "spread": spread, "not_run": None if seconds else "why"}
            for name, times, seconds, spread in (("bf16", [0.1, 0.102], 0.1, 0.02), ("tf32", [], None, None),
                                                 ("fp32", [0.4], 0.4, None))]
    lines = training.table({"rows": rows})
    assert lines[1] == ["sdpa", "bf16", "100.0", "81,920", "4.00", "900", "2.0% of 2"]
    assert lines[2] == ["sdpa", "tf32", "not run", "", "", "", ""]
    assert lines[3][4] == "1.00" and lines[3][6] == "1 run"


@pytest.mark.parametrize(("words", "said", "code"), [
    ((), "this Python has no torch: run it with the env's own", 1),
    (("--steps", "0"), "--steps must be 1 or more", 2),
    (("--output", "/nowhere/bench.json"), "--output: there is no folder /nowhere", 2),
])
def test_bad_input_is_one_line(words: tuple[str, ...], said: str, code: int) -> None:
    done = subprocess.run([sys.executable, "-S", str(PROGRAM), *words], text=True, capture_output=True, timeout=HANG_S)
    assert done.returncode == code and said in done.stderr.splitlines()[-1] and "Traceback" not in done.stderr
