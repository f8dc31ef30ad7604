"""A failure card leads with the training's own error: torchrun's and accelerate's words are told apart from it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from qwen_rig.finetune import failure

REPORTS = Path(__file__).parents[1] / "doctor" / "reports"
MADE = Path(__file__).parent / "failures"  # made on a CPU by the launcher that the name says: torch, accelerate
OWN_TRACEBACK = """Traceback (most recent call last):
  File "/r/train_qwen.py", line 300, in <module>
    main(sys.argv[1:])
KeyError: 'labels'

The above exception was the direct cause of the following exception:

Traceback (most recent call last):
  File "/r/train_qwen.py", line 301, in <module>
    main(sys.argv[1:])
ValueError: batch 12 has no labels"""


def summary(rank: int, code: int) -> str:
    """What torchrun 2.13 ends with (tests/finetune/failures has the whole)."""
    text = (MADE / "accelerate-0.34-raise.txt").read_text()
    rest = text[text.index("W1129"):]
    root = rest.index("Root Cause")
    return rest[:root] + rest[root:].replace("rank      : 1", f"rank      : {rank}").replace(
        "exitcode  : 1", f"exitcode  : {code}")


CASES = {
    "accelerate": ((MADE / "accelerate-0.34-raise.txt").read_text(),
                   "RuntimeError: the data loader has no samples left"),
    "own line": ((MADE / "torchrun-2.13-own-line.txt").read_text(), "the folder x holds no data"),
    "nccl": (yaml.safe_load((REPORTS / "found-h200-duplicate-gpu.yml").read_text())["log"],
             "torch.distributed.DistBackendError: NCCL error in: "),
    "killed": (yaml.safe_load((REPORTS / "found-h200-killed-rank.yml").read_text())["log"],
               "the process of rank 0 was ended by signal 9"),
    "one process, chained": (OWN_TRACEBACK, "ValueError: batch 12 has no labels"),
    "chained, with a summary": (f"{OWN_TRACEBACK}\n{summary(1, 1)}", "ValueError: batch 12 has no labels"),
    "the second to fail": (f"{OWN_TRACEBACK}\nRuntimeError: Connection closed by peer\n{summary(1, 1)}",
                           "ValueError: batch 12 has no labels"),
    "of one rank": (f"[rank0]: RuntimeError: Connection closed\n[rank1]: ValueError: bad row 3\n{summary(1, 1)}",
                    "ValueError: bad row 3"),
    "nothing is told": ("{'loss': 1.2}\nGoodbye", ""),
}


@pytest.mark.parametrize("case", CASES)
def test_the_training_s_own_error_leads_and_the_launcher_s_words_are_gone(case: str) -> None:
    log, why = CASES[case]
    lines = log.splitlines()
    said = failure.cause(lines)
    assert said.startswith(why) and bool(said) == bool(why), said
    shown = failure.trainer(lines)
    if case == "killed":
        assert shown == lines, "the launcher alone spoke"
        return
    text = "\n".join(shown)
    for word in ("ChildFailedError", "Root Cause", "torch/distributed/", "OMP_NUM_THREADS", "=====", "-----", "*****",
                 "closing signal", "launch_agent", "() was not called"):
        assert word not in text, text
    kept = [line for line in (OWN_TRACEBACK if OWN_TRACEBACK in log else why).splitlines() if line.strip()]
    assert all(line in text for line in kept), text


def test_a_summary_that_is_cut_off_anywhere_leaves_the_training_s_lines() -> None:
    whole = (MADE / "accelerate-0.34-raise.txt").read_text().splitlines()
    own = whole[:6]
    for end in range(len(own), len(whole) + 1):
        shown = failure.trainer(whole[:end])
        assert shown[:6] == own and failure.cause(whole[:end]) == "RuntimeError: the data loader has no samples left"
