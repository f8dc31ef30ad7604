"""Hosts that never end, that flood and that trickle, beside two good ones which finish: by our command line, and by
pyinfra's. Each bad host has a card of its own; this machine's memory and disk stay what they are."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from qwen_rig.catalog.datafile import DATA
from tests import HANG_S
from tests.e2e.conftest import REPO, Lab

pytestmark = pytest.mark.testbed
SHORT = {"connect": {"seconds": 5}, "step": {"slack_seconds": 2}, "command": {"seconds": 5},
         "answer": {"bytes": 1_000_000, "lines": 20_000},
         "file": {"bytes": 3_000_000, "grace_seconds": 3, "least_bytes_s": 10_000}}
MEMORY_MIB = 300  # of the whole controller, which takes half of that for honest hosts
LINE = "A" * 100
PROBE = '*"##rig"*'
JOB = f"{PROBE}) ;; *job.sh*"  # the probe, which names job.sh too, is answered honestly
FRAMED = r"m=${BASH_EXECUTION_STRING#*\' frame }; m=${m%% *}; printf '\n%s\n' $m;"  # as qwen_rig/shell/frame.sh does
RUNNING = r"@job state=running run=abc key=k started=0 now=61 to=1 code= limit=9 log=/l why=\nnews\n"


def when(pattern: str, act: str) -> str:
    """A start-up file of root's shell, which sshd's commands go through: other commands are answered honestly."""
    return f'case "$BASH_EXECUTION_STRING" in {pattern}) {act} ;; esac'


# host → (what its shell does, what its card says), in the one run and in the other
OURS = {
    "flood": (when(PROBE, f"exec yes {LINE}"), "its answer is longer than 1 MB: its connection was closed"),
    "trickle": (when(PROBE, "while :; do printf x; sleep 1; done"), "its answer did not come to an end within 4 s"),
    "forever": (when(JOB, f"cat >/dev/null & {FRAMED} printf '{RUNNING}'; sleep 1; printf '\\n%s 0\\n' $m; exit 0"),
                "has not ended within its limit of 3 s and 2 s more"),
    "flooding": (when(JOB, f"cat >/dev/null & exec yes {LINE}"), "its answer is longer than 1 MB"),
    "banner": ("", "it let nobody in within 5 s"),
}
PYINFRAS = {
    "flood": (when(PROBE, f"exec yes {LINE} >&2"), "its answer is longer than 1 MB: its connection was closed"),
    "trickle": (when(PROBE, "exec >&- 2>&-; sleep 600"), "its answer did not come to an end within 4 s"),
    "forever": (when(PROBE, 'bash --norc -c "$BASH_EXECUTION_STRING"; sleep 600'),
                "its answer did not come to an end within 4 s"),
    "flooding": (when(PROBE, "exec yes ''"), "its answer has more than 20000 lines"),
    "banner": ("", "it let nobody in within 5 s"),
}


@dataclass
class Ended:
    """A run that came to its end by itself."""

    code: int
    said: str
    peak_mib: int


class Bad(Lab):
    """Bad hosts and good ones, and runs over all of them."""

    def behave(self, cases: dict[str, tuple[str, str]]) -> None:
        for name, (shell, _) in cases.items():
            if shell:
                self.on(name, f"cat >/root/.bashrc <<'Q'\n{shell}\nQ\n")

    def run(self, module: str, *arguments: str) -> Ended:
        """One process from beginning to end, its memory watched."""
        said = self.folder / f"{module}.log"
        with said.open("wb") as file:
            begun = subprocess.Popen(
                [sys.executable, str(Path(__file__).with_name("short.py")), str(self.folder), module, *arguments],
                cwd=REPO, stdin=subprocess.DEVNULL, stdout=file, stderr=file,
                env=self._environment({"PYTHONPATH": str(REPO), "HOME": str(self.folder)}))
        peak, end = 0, time.monotonic() + HANG_S
        while begun.poll() is None:
            if time.monotonic() > end:
                begun.kill()
                begun.wait()
                raise AssertionError(f"it doesn't end: {said.read_text(errors='replace')[-3000:]}")
            peak = max(peak, _peak_mib(begun.pid))
            time.sleep(0.1)
        return Ended(begun.returncode, said.read_text(errors="replace"), peak)


def _peak_mib(process: int) -> int:
    try:
        rows = dict(line.split(":", 1) for line in Path(f"/proc/{process}/status").read_text().splitlines())
        return int(rows["VmHWM"].split()[0]) >> 10
    except (OSError, KeyError):
        return 0


@pytest.fixture(scope="module")
def lab(bed: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bad]:
    from testbed import HostSpec

    folder = tmp_path_factory.mktemp("flood")
    bounds = yaml.safe_load((DATA / "bounds.yml").read_text())
    for name, values in SHORT.items():
        bounds[name].update(values)
    (folder / "bounds.yml").write_text(yaml.safe_dump(bounds))
    own: dict[str, Any] = {"kind": "container", "driver": "580.95.05:open"}
    infos = bed.up([HostSpec(name, **own) for name in ("good-1", "good-2", *OURS) if name != "banner"])
    made = Bad(bed, infos, folder, verification="never", cuda_toolkit="never", compilers="never", flash_attn="off")
    for name in ("flood", "trickle", "forever", "flooding"):
        made.data["hosts"][name].update({"timeout_probe": 4 if name == "trickle" else 30, "timeout_env": 3,
                                         "timeout_apt": 3})
    with _listening() as port:
        made.data["hosts"]["banner"] = {**made.data["hosts"]["good-1"], "address": "127.0.0.1", "port": port}
        made.write()
        yield made
    bed.down()


class _listening:
    """A port behind which a server says one letter of its greeting each second."""

    def __enter__(self) -> int:
        self.plug = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._serve, daemon=True).start()
        return int(self.plug.getsockname()[1])

    def __exit__(self, *_: object) -> None:
        self.plug.close()

    def _serve(self) -> None:
        while True:
            try:
                channel, _ = self.plug.accept()
            except OSError:
                return
            threading.Thread(target=self._trickle, args=(channel,), daemon=True).start()

    def _trickle(self, channel: socket.socket) -> None:
        try:
            while True:
                channel.sendall(b"S")
                time.sleep(1)
        except OSError:
            return


def _told(ended: Ended, cases: dict[str, tuple[str, str]]) -> None:
    """Each bad host has its card, and nobody a traceback."""
    assert "Traceback" not in ended.said, ended.said[-3000:]
    for name, (_, says) in cases.items():
        assert ended.said.count(f"─ ✗ {name} ─") == 1, ended.said
        begin = ended.said.index(f"─ ✗ {name} ─")
        card = " ".join(line.strip("│ ") for line in ended.said[begin:ended.said.index("╰", begin)].splitlines())
        assert says in card and "→ " in card, card
    assert ended.peak_mib < MEMORY_MIB, f"the controller took {ended.peak_mib} MiB"


def test_by_our_command_line(lab: Bad) -> None:
    lab.behave(OURS)
    ended = lab.run("qwen_rig", "apply", "--yes", "-i", str(lab.file))
    _told(ended, OURS)
    assert ended.code == 1
    for good in ("good-1", "good-2"):
        assert lab.on(good, "readlink /root/miniforge3/envs/qwen-train").startswith(".qwen-train-"), "it has its env"


def test_by_pyinfras_command_line(lab: Bad) -> None:
    lab.behave(PYINFRAS)
    for name in ("trickle", "forever"):
        lab.data["hosts"][name]["timeout_probe"] = 4
    lab.write()
    ended = lab.run("pyinfra", "-y", "inventories/lab.py", "deploy/5090.py")
    _told(ended, PYINFRAS)
    assert ended.code == 1
    assert "good-1 ✓ no change" in " ".join(ended.said.split()), ended.said


GET = """
import sys, time
from qwen_rig.run import process  # isort: skip
from qwen_rig.entry import join
from qwen_rig.deploy import watched
from qwen_rig.deploy.planning import make_plan
from qwen_rig.run import adapter
from qwen_rig.run.run import Run
state = process.state(sys.argv[1], False)
run = join(state, Run(make_plan, watched))
process.ready(state, "inventories/lab.py", {}, ["good-1"])
process.connect(state)
[host] = adapter.active(state)
for remote in sys.argv[2:]:
    begun = time.monotonic()
    if remote == "/root/stall":
        assert host.run_shell_command("touch /root/stall")[0]
        host.connector.disconnect()
    run.report.contained("file", lambda: host.get_file(remote, "/dev/null"))
    print(remote, type(run.report.cards.pop("file", None)).__name__, round(time.monotonic() - begun), "s", flush=True)
    if not adapter.connected(host):
        assert run.links.reconnected(host)
assert host.get_file("/etc/hostname", "/dev/null"), "after all of that, files come"
host.connector.get_file_transfer_connection().close()
try:
    host.get_file("/etc/hostname", "/dev/null")
except Exception as error:
    print("broken:", type(error).__name__)
assert host.get_file("/etc/hostname", "/dev/null"), "an SFTP that died alone is made anew"
print("whole")
process.disconnect(state)
"""


def test_a_file_has_bounds_and_an_sftp_that_died_is_made_anew(lab: Bad) -> None:
    """A large file, one without an end whose size is said to be 0, and one that stalls."""
    stalls = when("*sftp*", "if rm /root/stall 2>/dev/null; then exec sleep 600; fi")
    lab.on("good-1", f"truncate -s 3100000 /root/large; cat >/root/.bashrc <<'Q'\n{stalls}\nQ\n")
    got = lab.folder / "get.py"
    got.write_text(GET)
    done = subprocess.run([sys.executable, str(Path(__file__).with_name("short.py")), str(lab.folder), "get", str(REPO),
                           "/root/large", "/dev/zero", "/root/stall"], cwd=REPO, text=True, capture_output=True,
                          timeout=HANG_S, env={**lab._environment({}), "PYTHONPATH": f"{REPO}{os.pathsep}{lab.folder}"})
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.split("\n")[-2] == "whole", done.stdout
    assert done.stdout.count(" Card ") == 3, done.stdout
    said = " ".join(done.stderr.split())
    assert said.count("the file is longer than 3 MB") == 2, said
    assert "the file stalls: 0 B came in the last 3 s, 0 B in all" in said, said
