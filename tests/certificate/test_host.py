"""qwen_rig/host/certify.py itself, where there is neither GPU nor torch; and all-reduces that hang or die."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import queue
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from qwen_rig.certificate import judge
from qwen_rig.cli import main
from tests import HANG_S, until

HOST = Path(__file__).parents[2] / "qwen_rig" / "host"


@pytest.fixture
def peers(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(HOST))
    return importlib.import_module("certify_peers")


@pytest.mark.parametrize("asked, dims", [
    ({"head_dims": []}, [64, 128]), ({}, [64, 128]), ({"head_dims": [256]}, [256])])
def test_a_stack_that_does_not_say_what_it_trains_has_its_attention_measured_all_the_same(
        monkeypatch: pytest.MonkeyPatch, asked: dict[str, Any], dims: list[int]) -> None:
    monkeypatch.syspath_prepend(str(HOST))
    assert importlib.import_module("certify").read_expect(json.dumps(asked))["head_dims"] == dims


@pytest.mark.parametrize("made", [(), ("flash_attn/cute",), ("flash_attn",)])
def test_a_folder_that_is_left_of_flash_attn_is_none(made: tuple[str, ...], tmp_path: Path,
                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(HOST))
    measure = importlib.import_module("certify_attention")
    monkeypatch.setattr(measure, "gpu", lambda expect: None)
    monkeypatch.syspath_prepend(str(tmp_path))
    for folder in made:
        (tmp_path / folder).mkdir(parents=True)
    with pytest.raises(importlib.import_module("processes").NotRun, match="isn't installed: training uses SDPA"):
        measure.flash_attention({"head_dims": [64]})


def test_an_all_reduce_that_hangs_is_a_finding_in_its_time(
        peers: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One rank answers, the other never does: both are gone when the limit is over, and the finding names the one.

    The clock stands still until the one has answered and the other is there; then the limit is over.
    """
    def clock() -> float:
        mine = tmp_path / "pid0"
        if not mine.exists() or Path("/proc", mine.read_text()).exists():
            return 0
        until(lambda: (tmp_path / "pid1").exists() and (tmp_path / "pid1").read_text())
        return HANG_S

    monkeypatch.setattr(peers, "time", SimpleNamespace(monotonic=clock))
    program = tmp_path / "rank.py"
    program.write_text("import json, os, sys, time\njob = json.loads(sys.argv[1])\n"
                       f"open({str(tmp_path)!r} + f'/pid{{job[\"rank\"]}}', 'w').write(str(os.getpid()))\n"
                       f"time.sleep({2 * HANG_S} if job['rank'] == 1 else 0)\n"
                       "print('rig-result ' + json.dumps({'status': 'measured', 'data': {'seconds': 1}}))\n")
    found = peers.all_reduce({}, ranks=2, backend="gloo", limit=HANG_S, program=str(program))
    assert found["status"] == "fail" and found["hang"] is True
    assert found["why"].startswith(f"no end after {HANG_S} s: rank 1 of 2 hangs in gloo")
    pid = (tmp_path / "pid1").read_text()
    assert not Path(f"/proc/{pid}").exists(), "what hung has been killed"


def test_where_nccls_peer_to_peer_fails_it_is_tried_without_and_the_finding_says_so(
        peers: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "rank.py"
    program.write_text("import json, os\n"
                       "if os.environ.get('NCCL_P2P_DISABLE') != '1': raise SystemExit('peer access')\n"
                       "print('rig-result ' + json.dumps({'status': 'measured', 'data': "
                       "{'seconds': 0.1, 'version': '2.27'}}))\n")
    found = peers.all_reduce({}, ranks=2, limit=HANG_S, program=str(program))
    assert found["status"] == "measured" and "peer access" in found["data"]["without_peers"]
    assert found["data"]["environment"]["NCCL_P2P_DISABLE"] == "1"
    monkeypatch.setenv("NCCL_P2P_DISABLE", "0")  # the user's own word
    assert "without_peers" not in peers.all_reduce({}, ranks=2, limit=HANG_S, program=str(program))
    program.write_text("raise SystemExit('no NCCL')\n")
    monkeypatch.delenv("NCCL_P2P_DISABLE")
    assert peers.all_reduce({}, ranks=2, limit=HANG_S, program=str(program))["status"] == "fail"


def test_a_rank_that_dies_is_a_finding(peers: Any, tmp_path: Path) -> None:
    program = tmp_path / "rank.py"
    program.write_text("raise SystemExit('NCCL error: unhandled system error')\n")
    found = peers.all_reduce({}, ranks=2, backend="gloo", limit=HANG_S, program=str(program))
    assert found["status"] == "fail" and "2 of 2 ranks died: NCCL error" in found["why"]


EACH_S = 2 * HANG_S  # for a check


@pytest.mark.parametrize(("hangs", "deadline", "states", "why"), [
    ("first_kernel", 3 * EACH_S, ["measured", "fail", "not_run", "not_run"], "the card hung in first_kernel"),
    ("matmul", 3 * EACH_S, ["measured", "measured", "fail", "measured"], None),
    ("first_kernel", EACH_S - 1, ["measured", "not_run", "not_run", "not_run"], "the time for all checks is up"),
])
def test_a_hang_costs_what_it_must_and_the_time_is_kept(
        peers: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hangs: str, deadline: float, states: list[str],
        why: str | None) -> None:
    """What hangs leaves a process that outlives its kill and holds the pipe, as one in the driver does.

    The clock stands still until something hangs; then the time for it, or for all checks, is over.
    """
    held, line, passed = tmp_path / "held", "a line at which the clock is looked at", [0.0]

    class Said(queue.Queue[Any]):
        def get(self, block: bool = True, timeout: float | None = None) -> Any:
            found = super().get(block, timeout)
            if found and found.startswith(line):
                passed[0] = min(EACH_S, deadline)
            return found

    certify = importlib.import_module("certify")
    names = ["torch_build", "first_kernel", "matmul", "training"]
    program = tmp_path / "program.py"
    program.write_text(f"""import subprocess, sys, time
sys.path.insert(0, {str(HOST)!r})
from processes import result, serve

def hang(expect):
    holder = subprocess.Popen(["sleep", "{2 * HANG_S}"], start_new_session=True)
    open({str(held)!r}, "w").write(str(holder.pid))
    print({line!r}, flush=True)
    time.sleep({2 * HANG_S})

checks = dict.fromkeys({names}, lambda expect: result("measured"))
serve({{**checks, {hangs!r}: hang}})
""")
    monkeypatch.setattr(certify, "__file__", str(program))
    monkeypatch.setattr(certify, "BATCHES", (dict.fromkeys(names[:3]), dict.fromkeys(names[3:])))
    monkeypatch.setattr(certify, "SECONDS", dict.fromkeys(names, EACH_S))
    processes = importlib.import_module("processes")
    monkeypatch.setattr(processes, "queue", SimpleNamespace(Queue=Said, Empty=queue.Empty))
    monkeypatch.setattr(processes, "time", SimpleNamespace(monotonic=lambda: passed[0]))
    card: dict[str, Any] = {"uuid": None, "checks": {}}
    certify.certify_one(card, certify.DEFAULTS, deadline)
    os.kill(int(held.read_text()), signal.SIGKILL)  # it's there still: nobody has waited for the pipe's end
    assert [card["checks"][name]["status"] for name in names] == states
    assert why is None or card["checks"]["training"]["why"] == why


def test_a_card_that_nvidia_smi_does_not_list_is_silent(peers: Any, tmp_path: Path) -> None:
    """Of five on the bus one answers, one is an audio function, one another vendor's, one a virtual machine's."""
    card = importlib.import_module("certify_card")
    for slot, vendor, kind, driver in (
            ("0000:06:00.0", "0x10de", "0x030200", "nvidia"), ("0000:07:00.0", "0x10de", "0x030200", "nvidia"),
            ("0000:07:00.1", "0x10de", "0x040300", "snd_hda_intel"), ("0000:08:00.0", "0x1002", "0x030000", "amdgpu"),
            ("0000:09:00.0", "0x10de", "0x030000", "vfio-pci")):
        (tmp_path / slot).mkdir()
        (tmp_path / slot / "vendor").write_text(f"{vendor}\n")
        (tmp_path / slot / "class").write_text(f"{kind}\n")
        (tmp_path / slot / "driver").symlink_to(f"../../drivers/{driver}")
    found = card.bus([{"pci.bus_id": "00000000:06:00.0"}], tmp_path)
    assert found["data"]["silent"] == ["0000:07:00.0"]
    assert judge.silent({"bus": found}) == ["GPU at 0000:07:00.0 doesn't answer nvidia-smi"]


@pytest.mark.skipif(importlib.util.find_spec("torch") is not None, reason="this Python has torch")
def test_without_torch_every_check_says_so_and_nothing_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                              capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "measured.json"
    done = subprocess.run([sys.executable, HOST / "certify.py", "--out", out], capture_output=True, text=True,
                          timeout=HANG_S, env={"PATH": str(tmp_path)})  # no nvidia-smi, no dmesg
    assert done.returncode == 0, done.stderr
    checks = json.loads(out.read_text())["cards"][0]["checks"]
    assert checks.pop("gated_delta")["why"] == "the Qwen of this stack has no linear layers"
    assert {check["status"] for check in checks.values()} == {"fail"}
    assert {check["why"] for check in checks.values()} == {"torch is not installed"}
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert main(["certificate", "read", str(out)]) == 4
    assert "no card, so no certificate is kept" in capsys.readouterr().out


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    expect = json.dumps({"torch": None, "stack": "standin"})
    out = tmp_path / "no" / "m.json"
    done = subprocess.run([sys.executable, HOST / "certify.py", "--expect", expect, "--out", out], capture_output=True,
                          text=True, timeout=HANG_S)
    assert done.returncode == 1 and "can't be written" in done.stderr and "Traceback" not in done.stderr
