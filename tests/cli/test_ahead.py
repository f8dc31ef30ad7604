"""Hosts go ahead: none waits at a step's end, one that fails or raises ends alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests import HANG_S

REPO = Path(__file__).parents[2]
# In a process of its own: pyinfra's command line patches the standard library for gevent.
PROGRAM = """
from qwen_rig.run import process
import time
from contextlib import nullcontext
from types import SimpleNamespace

SLOW, DONE, ENDED = {"slow": 0.3}, [], []
class Host(SimpleNamespace):
    __hash__ = object.__hash__

hosts = [Host(name=name) for name in ("slow", "quick", "fails", "raises")]
state = SimpleNamespace(get_op_order=lambda: ["a", "b", "c"], set_stage=lambda stage: None, failed=set(),
                        inventory=SimpleNamespace(get_active_hosts=lambda: hosts))
state.fail_hosts = lambda found: state.failed.update(host.name for host in found)

def run(state, host, op):
    time.sleep(SLOW.get(host.name, 0.01))
    if op == "b" and host.name == "raises":
        raise ValueError("odd")
    DONE.append((host.name, op))
    return not (op == "b" and host.name == "fails")

def contained(host, act):
    try:
        return act()
    except ValueError:
        return None

process.run_host_op = run
process.ctx_state = process.ctx_host = SimpleNamespace(use=lambda found: nullcontext())
process.execute_ahead(state, contained, lambda host: ENDED.append(host.name))
assert DONE.index(("quick", "c")) < DONE.index(("slow", "a")), DONE
assert [op for name, op in DONE if name == "slow"] == ["a", "b", "c"]
assert [op for name, op in DONE if name == "fails"] == ["a", "b"] and ("raises", "b") not in DONE
assert state.failed == {"fails", "raises"} and ENDED[-1] == "slow" and len(ENDED) == 4 and state.is_executing
"""


def test_a_slow_host_holds_no_other_up() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=REPO, capture_output=True, text=True, timeout=HANG_S)
    assert done.returncode == 0, done.stderr
