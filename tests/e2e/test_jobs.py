"""Long work that can't be lost: SSH cut at random moments of a job, the controller killed, the host rebooted, and the
same done to whole deploys. The moments are seeded; that nothing ran twice is read from the hosts' own journals."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests import HANG_S, until

from .conftest import Lab

pytestmark = pytest.mark.testbed
SEED = 20260
CUTS, KILLS = 4, 8  # connections cut on each host; controllers killed
# Root by login, a user's own job, root by sudo; by setsid, and as units of a real systemd.
USERS = {"plain": "root", "plain-too": "root", "own": "dev", "sudoer": "dev", "unit": "root", "unit-sudo": "dev"}
SUDO = "sudoer,unit-sudo"
ENV = "/root/miniforge3/envs/qwen-train"


def _on_each(hosts: Iterable[str], work: Callable[[str], None]) -> None:
    """Do the work on all hosts at once; back when all is done, or after HANG_S."""
    threads = [threading.Thread(target=work, args=(host,), daemon=True) for host in hosts]
    for thread in threads:
        thread.start()
    end = time.monotonic() + HANG_S
    for thread in threads:
        thread.join(max(0, end - time.monotonic()))


class Controller:
    """One pyinfra process at work, and the hosts' sshd counting what it asks for."""

    def __init__(self, lab: Lab, name: str, *arguments: str, **environment: str) -> None:
        self.lab, self.file = lab, lab.folder / f"{name}.log"
        self.before = {host: lab.bed.execs(host) for host in lab.hosts}
        self.process = lab.begin(self.file, *arguments, **environment)

    def dialled(self, host: str) -> None:
        """Return when it has sent its first command to that host."""
        until(lambda: self.lab.bed.execs(host) > self.before[host] or self.process.poll() is not None, self.said)

    def kill(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def end(self) -> int:
        return self.process.wait(timeout=HANG_S)

    def said(self) -> str:
        return self.file.read_text(errors="replace")


def waits(name: str) -> dict[str, str]:
    """The environment of long_job.py: a job that is at work until the test says go."""
    return {"JOB_SUDO": SUDO, "JOB_SECONDS": str(HANG_S), "JOB_SCRIPT": f"""echo begun
n=0; while [ ! -e /var/tmp/go-{name} ]; do n=$((n + 1)); echo "@progress $n 10000 ticks"; sleep 0.1; done
echo "this is all of it" """}


def go(lab: Lab, name: str) -> None:
    for host in lab.hosts:
        lab.on(host, f"touch /var/tmp/go-{name}")


def cut(lab: Lab, host: str) -> bool:
    """End the host's SSH sessions without a word to the commands that they run; False where there was none."""
    return lab.bed.exec_(host, ["pkill", "-KILL", "-f", "^sshd: [a-z]"]).returncode == 0


def journal(lab: Lab, host: str, home: str = "") -> list[tuple[str, ...]]:
    """(start or end, step, run, boot id or exit code): each beginning and end of a job, as the host wrote it down."""
    path = f"{home}/.local/state/qwen-rig/jobs/journal" if home else "/var/lib/qwen-rig/jobs/journal"
    return [tuple(line.split()[1:]) for line in lab.on(host, f"cat {path} 2>/dev/null || true").splitlines()]


def of(lab: Lab, host: str) -> list[tuple[str, ...]]:
    return journal(lab, host, "/home/dev" if host == "own" else "")


def check(rows: list[tuple[str, ...]], cut_off: int = 0) -> None:
    """Each run began once, no two of a step were at work at once, and no more than `cut_off` have no end."""
    runs = [row[2] for row in rows if row[0] == "start"]
    assert len(set(runs)) == len(runs), rows
    ends = {row[2] for row in rows if row[0] == "end"}
    assert len(set(runs) - ends) <= cut_off, rows
    at_work: dict[str, str] = {}
    for what, step, run, *_ in rows:
        if what == "start":
            assert at_work.get(step) not in ends, f"{run} began while {at_work.get(step)} was at work: {rows}"
            at_work[step] = run
        else:
            assert at_work.pop(step) == run, rows


@pytest.fixture(scope="module")
def lab(bed: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    from testbed import HostSpec

    infos = bed.up([HostSpec(name, user=user, kind="vm" if name.startswith("unit") else "metal")
                    for name, user in USERS.items()])
    yield Lab(bed, infos, tmp_path_factory.mktemp("jobs"))
    bed.down()


def test_ssh_cut_at_any_moment(lab: Lab) -> None:
    """One run, with 24 cuts: it connects again by itself, and sees the one job through to its end."""
    controller = Controller(lab, "cuts", "-y", "tests/e2e/long_job.py", **waits("cuts"))
    counted = dict.fromkeys(lab.hosts, 0)

    def cut_again_and_again(host: str) -> None:
        moments = random.Random(f"{SEED} {host}")
        controller.dialled(host)
        while counted[host] < CUTS and controller.process.poll() is None:
            time.sleep(moments.uniform(0, 1.5))
            counted[host] += cut(lab, host)

    _on_each(lab.hosts, cut_again_and_again)
    assert sum(counted.values()) == CUTS * len(lab.hosts) >= 20, counted
    go(lab, "cuts")
    assert controller.end() == 0, controller.said()
    assert controller.said().count("connected again") >= len(lab.hosts)
    assert "✗" not in controller.said(), "a try that fails is no end"
    known = (lab.folder / "known_hosts").read_text().splitlines()
    assert len(known) == len(lab.hosts), "whoever answers later has the key of who answered first"
    for host in lab.hosts:
        assert [row[0] for row in of(lab, host)] == ["start", "end"], (host, of(lab, host), controller.said())
        check(of(lab, host))


def test_controllers_killed_and_two_at_once(lab: Lab) -> None:
    """Eight are killed, the last two see the same job's end; where the host was rebooted meanwhile, it begins anew."""
    moments, before = random.Random(f"{SEED} kills"), {host: len(of(lab, host)) for host in lab.hosts}
    for n in range(KILLS):
        controller = Controller(lab, f"kill-{n}", "-y", "tests/e2e/long_job.py", **waits("kills"))
        controller.dialled(moments.choice([*lab.hosts]))
        time.sleep(moments.uniform(0, 0.8))
        assert controller.process.poll() is None, controller.said()
        controller.kill()
    lab.bed.reboot("plain")
    both = [Controller(lab, f"last-{n}", "-y", "tests/e2e/long_job.py", **waits("kills")) for n in range(2)]
    until(lambda: all(c.said().count("ticks") >= len(lab.hosts) for c in both), lambda: str([c.said() for c in both]))
    go(lab, "kills")
    assert [c.end() for c in both] == [0, 0], both[0].said() + both[1].said()
    assert "attached to the job that is at work there" in both[0].said() + both[1].said()
    for host in lab.hosts:
        rows = of(lab, host)[before[host]:]
        rebooted = host == "plain"
        check(rows, cut_off=rebooted)
        assert [row[0] for row in rows].count("start") <= 1 + rebooted, (host, rows)
        assert rows[-1][0] == "end" and rows[-1][3] == "0", (host, rows)


def test_hosts_rebooted_under_the_job(lab: Lab) -> None:
    """The run sees it, says it, and starts the job again; what the reboot ended has no end on record."""
    before = {host: len(of(lab, host)) for host in lab.hosts}
    controller = Controller(lab, "reboots", "-y", "tests/e2e/long_job.py", **waits("reboots"))
    surely = [*lab.hosts][::2]  # the others go down at any moment after the first command, begun or not

    def reboot(host: str) -> None:
        controller.dialled(host)
        if host in surely:
            until(lambda: len(of(lab, host)) > before[host], controller.said)
        time.sleep(random.Random(f"{SEED} reboot {host}").uniform(0, 2))
        lab.bed.reboot(host)

    _on_each(lab.hosts, reboot)
    go(lab, "reboots")
    assert controller.end() == 0, controller.said()
    for host in surely:
        cause = "the host was rebooted" + ("|it was killed" if host.startswith("unit") else "")  # by systemd, before
        assert re.search(rf"(?m)^ *{host}  cut off \(({cause})\): starting again", controller.said()), controller.said()
    for host in lab.hosts:
        rows = of(lab, host)[before[host]:]
        check(rows, cut_off=1)
        assert [row[0] for row in rows] in (["start", "start", "end"], ["start", "end"]), (host, rows)
        assert rows[-1][3] == "0" and len({row[3] for row in rows if row[0] == "start"}) == len(rows) - 1, "other boots"


def test_a_job_that_its_runner_ends_says_why(lab: Lab) -> None:
    """Out of time on one host, killed on another; the third, which ends by itself, has no words but its own.

    Only the first has a limit that is ever reached.
    """
    script = (f"case $(hostname) in plain) sleep {HANG_S} ;; plain-too) kill -KILL $$ ;; "
              "*) echo 'no such luck'; exit 3 ;; esac")
    limits = [word for host in ("plain", "plain-too", "sudoer") for word in ("--limit", host)]
    run = lab.pyinfra("-y", *limits, "tests/e2e/long_job.py", JOB_SECONDS=str(HANG_S), JOB_SHORT="plain:2",
                      JOB_SCRIPT=script, JOB_SUDO=SUDO)
    assert run.code == 1
    said = " ".join(run.stderr.split())
    assert "qwen-rig: out of time: ended after 2 s; raise its timeout_… knob" in said, run.stderr
    assert "qwen-rig: killed: out of memory, or by somebody" in said, run.stderr
    assert "no such luck" in said and said.count("qwen-rig: ") == 2, run.stderr


# -- the whole deploy -----------------------------------------------------------------------------------------------

# Looks all the time, on the host: a link to an env without its record is half an env.
_WATCH = f"while :; do if [ -e {ENV} ] && [ ! -s {ENV}/.rig/env.json ]; then date >>/half; fi; sleep 0.05; done"


def _watch(lab: Lab, host: str) -> None:
    lab.on(host, f"setsid sh -c '{_WATCH}' </dev/null >/dev/null 2>&1 &")


@pytest.fixture
def deployed(bed: Any, tmp_path: Path) -> Iterator[Lab]:
    from testbed import HostSpec

    infos = bed.up([HostSpec(name, kind="container", driver="580.95.05:open") for name in ("pod-a", "pod-b")])
    yield Lab(bed, infos, tmp_path)
    bed.down()


# A tar that unpacks and then hangs: conda's installer is cut off when all that makes a conda look sound is there.
_HANG = """printf '%s\\n' '#!/bin/sh' '/usr/bin/tar "$@"; touch /unpacked; sleep 3600' >/usr/local/sbin/tar
chmod +x /usr/local/sbin/tar"""


def test_whole_deploys_cut_and_killed(deployed: Lab) -> None:
    """Four are disturbed at random moments, then a host goes down in mid-installation: the next run converges."""
    lab, moments = deployed, random.Random(f"{SEED} deploys")
    for host in lab.hosts:
        _watch(lab, host)
    for n in range(4):
        run = Controller(lab, f"deploy-{n}", "-y", "deploy/5090.py")
        run.dialled("pod-a")
        time.sleep(moments.uniform(0, 9))
        if n % 2:
            run.kill()
        else:
            for host in lab.hosts:
                cut(lab, host)
            with suppress(subprocess.TimeoutExpired):  # it may connect again and come through; long enough to see it
                run.process.wait(timeout=4)
            run.kill() if run.process.poll() is None else None
        assert "Traceback" not in run.said(), run.said()
    for host in lab.hosts:
        check(journal(lab, host), cut_off=1)  # one may still be at work
    final = lab.deploy("-y")
    assert final.code == 0, final.stderr
    for host in lab.hosts:
        check(journal(lab, host))
    _half_a_conda(lab, "pod-a")
    assert "No changes. pod-a, pod-b match." in lab.deploy("-y").stderr
    for host in lab.hosts:
        assert lab.on(host, "cat /half 2>/dev/null || true") == "", "half an env was visible"
        left = lab.on(host, "ls -d /root/miniforge3* /root/.cache/qwen-rig/*.new /tmp/tmp.* 2>/dev/null || true")
        assert left.split() == ["/root/miniforge3"], "no litter"


def _half_a_conda(lab: Lab, host: str) -> None:
    """Its conda away, the next one's installation cut off by a reboot; then mended by two controllers at once."""
    lab.on(host, f"rm -rf /root/miniforge3\n{_HANG}")
    run = Controller(lab, "half", "-y", "--limit", host, "deploy/5090.py")
    until(lambda: lab.on(host, "ls /unpacked 2>/dev/null || true") or run.process.poll() is not None, run.said)
    run.kill()
    lab.bed.reboot(host)
    assert "bin/conda" in lab.on(host, "rm /usr/local/sbin/tar; ls /root/miniforge3/bin/conda"), "it looks sound"
    _watch(lab, host)
    before = len(journal(lab, host))
    both = [Controller(lab, f"mend-{n}", "-y", "--limit", host, "deploy/5090.py") for n in range(2)]
    assert [c.end() for c in both] == [0, 0], str([c.said() for c in both])
    rows = journal(lab, host)[before:]
    check(rows)
    steps = [row[1] for row in rows if row[0] == "start"]
    assert {"conda", "env", "verify"} <= set(steps) and len(steps) == len(set(steps)), f"each step once: {steps}"
