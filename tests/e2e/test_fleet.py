"""Eight hosts that want the same flash-attn: one builds it, seven get copies; whatever happens to the one that builds.

A small sdist without CUDA STANDS IN for flash-attn's (it computes nothing, and pretends to compile six objects); the
GPUs are emulated. Real: sshd, the jobs on the hosts and their journals, pip, SFTP, the controller's cache.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts import standin_wheel
from tests import HANG_S, until

from .conftest import REPO, Lab, Run

pytestmark = pytest.mark.testbed
NAMES = [f"rack-{number}" for number in range(1, 9)]
FOUR = ("--limit", "rack-[1-4]")  # enough where the count is not what matters
ORDERS = "/root/standin-build"  # what the stand-in's build shall do on a host: its lines are Python
JOBS, ENV = "/var/lib/qwen-rig/jobs", "/root/miniforge3/envs/qwen-train"
SETUP = f"""
import pathlib, time
from setuptools import setup

orders = pathlib.Path({ORDERS!r})
if orders.exists():
    exec(orders.read_text())
for number in range(1, 7):
    time.sleep(0.1)
    print(f"[{{number}}/6] stand-in object", flush=True)
setup(name={standin_wheel.NAME!r}, version={standin_wheel.VERSION!r}, packages=[{standin_wheel.MODULE!r}])
"""
# A build that goes on when it is told to, so that what shall happen meanwhile really does.
HELD = f"""
while not pathlib.Path("{ORDERS}.go").exists():
    time.sleep(0.1)
"""
DIES = "raise SystemExit('nvcc error: stand-in')"
WAITS = "another run on this machine builds the same"  # what follows may stand on the next line
ATTACHED = "attached to the job that is at work there"


def sdist() -> bytes:
    """The stand-in's sources, the same bytes each time."""
    files = {"setup.py": SETUP, **{name: text for name, text in standin_wheel.FILES.items() if name.endswith(".py")}}
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, text in files.items():
            entry = tarfile.TarInfo(f"{standin_wheel.MODULE}-{standin_wheel.VERSION}/{name}")
            entry.size = len(text.encode())
            archive.addfile(entry, io.BytesIO(text.encode()))
    return packed.getvalue()


class Rack(Lab):
    """Eight hosts whose envs stand already; only flash-attn is left to decide."""

    def stack(self) -> Path:
        """`standin` with the sources to build from."""
        made = yaml.safe_load((REPO / "qwen_rig" / "data" / "stacks" / "standin.yml").read_text())
        content = sdist()
        from testbed.paths import cache

        sha256 = hashlib.sha256(content).hexdigest()
        served = cache() / "flash-attn" / f"fleet-{sha256[:12]}" / f"{standin_wheel.MODULE}-{standin_wheel.VERSION}.tar"
        served.parent.mkdir(parents=True, exist_ok=True)
        served.write_bytes(content)
        made["flash_attn"]["build"] = {
            "package": standin_wheel.NAME, "version": standin_wheel.VERSION,
            "sdist": f"{self.bed.services().flash_attn}/{served.parent.name}/{served.name}",
            "sha256": sha256, "cuda": False, "archs": [],
            "check": f"-m {standin_wheel.MODULE}", "requires": ["setuptools", "wheel"], "free_mib": 1,
            "source": "its test"}
        path = self.folder / "fleet.yml"
        path.write_text(yaml.safe_dump(made))
        return path

    @property
    def cache(self) -> Path:
        return self.folder / "cache"

    def run(self, *more: str) -> Run:
        return self.deploy("-y", *more, XDG_CACHE_HOME=str(self.cache))

    def builds(self) -> list[str]:
        """Hosts on which a build was begun, once for each, in their order, as the hosts' own journals have it."""
        return [name for _, name in self.journals("start")]

    def journals(self, wanted: str) -> list[tuple[int, str]]:
        """(second, host) of each start or end of a build, in their order."""
        found = []
        for name in NAMES:
            journal = self.bed.folder / "hosts" / name / "disk" / "upper" / f"{JOBS}/journal".lstrip("/")
            for line in journal.read_text().splitlines() if journal.exists() else ():
                when, what, step, *_ = line.split()
                if (what, step) == (wanted, "flash_build"):
                    found.append((int(when), name))
        return sorted(found)

    def when_begun(self, count: int, act: Callable[[str], None]) -> threading.Thread:
        """Meanwhile: as soon as that many builds have begun in all, do something about the last one's host.

        That one must be HELD: else more may have begun before this looks.
        """
        def wait() -> None:
            found = until(lambda: here if len(here := self.builds()) >= count else [])
            if len(found) == count:
                act(found[-1])

        thread = threading.Thread(target=wait, daemon=True)
        thread.start()
        return thread

    def order(self, orders: str, but: str = "") -> None:
        """What builds that begin from now on shall do, on all hosts but one."""
        for name in NAMES:
            if name != but:
                self.on(name, f"cat >{ORDERS} <<'.'\n{orders}\n.\n")

    def let_go(self, name: str) -> None:
        """Let the build that is HELD on this host go on, in another second than it began: journals count seconds."""
        time.sleep(1.1)
        self.on(name, f"touch {ORDERS}.go")

    def rungs(self, names: Sequence[str] = NAMES) -> dict[str, str]:
        return {name: self.record(name, "flash_attn")["rung"] for name in names}

    def afresh(self) -> None:
        """As before the attempt: no record, no wheel in the envs, nothing in the controller's cache, no orders."""
        subprocess.run(["rm", "-rf", str(self.cache)], check=True)
        for name in NAMES:
            self.on(name, f"rm -rf {ORDERS} {ORDERS}.go {JOBS} {ENV}/.rig/build {ENV}/.rig/flash_attn.json "
                          f"{ENV}/lib/python3.*/site-packages/{standin_wheel.MODULE}*")


@pytest.fixture(scope="module")
def rack(bed: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rack]:
    """One host is made ready and its disk copied seven times: the envs are not what is tested here."""
    from testbed import HostSpec

    spec = HostSpec("first", kind="container", driver="580.95.05:open")
    folder = tmp_path_factory.mktemp("rack")
    first = Lab(bed, bed.up([spec]), folder)
    made = first.deploy("-y", "--data", "verification=never")
    assert made.code == 0, made.stderr
    image = bed.commit("first", f"fleet-{os.getpid()}")  # the cache is shared with other checkouts
    bed.down()
    small = {NAMES[-1]: 6144}  # its cgroup has no memory for a compiler
    rack = Rack(bed, bed.up([HostSpec(name, kind="container", driver="580.95.05:open", image=image,
                                      memory_mib=small.get(name)) for name in NAMES]), folder)
    rack.data["defaults"] |= {"stack": str(rack.stack()), "flash_attn": "build", "verification_gpu": True,
                              "verification": "never", "trust_domain": "rack"}
    rack.write()
    yield rack
    bed.down()
    shutil.rmtree(image)


def test_one_host_builds_seven_get_copies_and_a_second_run_does_nothing(rack: Rack) -> None:
    first = rack.run()
    assert first.code == 0, first.stderr
    assert "no build: (6 − 4) / 6 GiB of memory is less than one compile job" in rack.record(
        NAMES[-1], "flash_attn")["rejected"], "it only gets a copy"
    assert len(rack.builds()) == 1 and rack.builds() != NAMES[-1:], "as the hosts' own journals count"
    builder = rack.builds()[0]
    rungs = rack.rungs()
    assert rungs.pop(builder) == "build" and set(rungs.values()) == {"fleet"}, first.stderr
    records = {name: rack.record(name, "flash_attn") for name in NAMES}
    assert len({made["sha256"] for made in records.values()}) == 1
    assert all(made["attention"] == "flash_attention_2" for made in records.values())
    assert first.stderr.count(f"built on {builder}, domain rack") == 2 * 7, first.stderr  # at its end, and in the recap
    kept = list((rack.cache / "qwen-rig" / "flash-attn" / "domain-rack").glob("*/record.json"))
    assert len(kept) == 1 and json.loads(kept[0].read_text())["sha256"] == records[builder]["sha256"]

    counted = {name: rack.bed.execs(name) for name in NAMES}
    second = rack.run()
    assert second.code == 0 and "No changes." in second.stderr, second.stderr
    assert len(rack.builds()) == 1
    assert {name: rack.bed.execs(name) - counted[name] for name in NAMES} == dict.fromkeys(NAMES, 1)


def test_where_a_build_fails_and_a_connection_is_lost_the_third_host_builds_for_the_rest(rack: Rack) -> None:
    rack.afresh()
    rack.order(HELD + DIES)
    lost: list[str] = []

    def fail(name: str) -> None:
        rack.order(HELD, but=name)
        rack.let_go(name)

    def cut(name: str) -> None:
        rack.order("", but=name)
        lost.append(name)
        rack.on(name, "mv /usr/sbin/sshd /usr/sbin/sshd.away; pkill sshd")

    threads = [rack.when_begun(1, fail), rack.when_begun(2, cut)]
    try:
        done = rack.run(*FOUR, "--parallel", "3", "--data", "timeout_reconnect=2")
        for thread in threads:
            thread.join()
    finally:
        for name in lost:
            rack.on(name, "mv /usr/sbin/sshd.away /usr/sbin/sshd")
            rack.let_go(name)  # nobody waits for it any more, but the next test wants the host to itself
            until(lambda name=name: name in {host for _, host in rack.journals("end")})
    builds = rack.builds()
    assert len(builds) == 3 and lost == [builds[1]], (builds, done.stderr)
    assert f"✗ {lost[0]}" in done.stderr and "Traceback" not in done.stderr
    failed = rack.record(builds[0], "flash_attn")
    assert failed["rung"] == "sdpa" and any("nvcc error: stand-in" in line for line in failed["tried"][-1]["last"])
    assert rack.record(builds[2], "flash_attn")["rung"] == "build"
    fourth, = set(NAMES[:4]) - set(builds)
    assert rack.record(fourth, "flash_attn")["rung"] == "fleet"


def test_by_setting_all_fall_back_to_sdpa_where_the_first_fails_one_after_the_other_too(rack: Rack) -> None:
    rack.afresh()
    rack.order(DIES)
    done = rack.run(*FOUR, "--serial", "--data", "flash_attn_leader_failed=sdpa")
    assert done.code == 0, "SDPA is a normal end"
    tried, = rack.builds()
    assert set(rack.rungs(NAMES[:4]).values()) == {"sdpa"}
    for name in set(NAMES[:4]) - {tried}:
        assert f"the build failed on {tried}" in rack.record(name, "flash_attn")["why"], name


def started(rack: Rack, title: str, *more: str) -> subprocess.Popen[bytes]:
    """A run in the background, its words in a file of that title."""
    return rack.begin(rack.folder / title, "-y", *more, "deploy/5090.py", XDG_CACHE_HOME=str(rack.cache))


def test_two_runs_at_once_on_one_controller_build_once(rack: Rack) -> None:
    rack.afresh()
    rack.order(HELD)
    runs = {name: started(rack, name, "--limit", name) for name in NAMES[:2]}
    waiting = until(lambda: [name for name in runs if WAITS in (rack.folder / name).read_text()],
                    lambda: {name: (rack.folder / name).read_text() for name in runs})
    for name in runs:
        rack.on(name, f"touch {ORDERS}.go")
    assert [run.wait(HANG_S) for run in runs.values()] == [0, 0]
    builder, = rack.builds()
    waited, = set(runs) - {builder}
    assert waiting == [waited]
    assert rack.rungs(NAMES[:2]) == {builder: "build", waited: "fleet"}


def test_a_killed_controller_leaves_one_build_which_the_next_run_takes_up(rack: Rack) -> None:
    rack.afresh()
    rack.order(HELD)
    controller = started(rack, "killed", *FOUR)
    rack.when_begun(1, lambda _: controller.send_signal(signal.SIGKILL)).join()
    assert controller.wait(HANG_S) == -signal.SIGKILL
    builder, = rack.builds()
    again = started(rack, "again", *FOUR)
    until(lambda: ATTACHED in (rack.folder / "again").read_text() or again.poll() is not None)
    rack.on(builder, f"touch {ORDERS}.go")
    assert again.wait(HANG_S) == 0, (rack.folder / "again").read_text()
    assert rack.builds() == [builder], "taken up, not begun again, and nobody else began"
    rungs = rack.rungs(NAMES[:4])
    assert rungs.pop(builder) == "build" and set(rungs.values()) == {"fleet"}


# -- a builder that lies -------------------------------------------------------------------------------

OWNED, SITE = "/root/OWNED", f"{ENV}/lib/python3.*/site-packages"
CANARY = f'import os; open("{OWNED}", "a").write(os.uname().nodename)'
# The env's python of a host whose root puts a file of its own into the wheel that it says it has built, and tells that
# wheel's sha256: the file is run by every Python of an env that the wheel comes into.
LIES = f"""cd {ENV}/bin && real=$(readlink -f python) && ln -s "$real" python.real && rm python && cat >python <<'.'
#!/bin/bash
here=$(dirname "$0")
case "$1" in *flash_build.py)
  said=$("$here/python.real" "$@") || {{ echo "$said"; exit 1; }}
  echo "$said" | sed '$d'
  echo "$said" | tail -n 1 | "$here/python.real" -c '
import hashlib, json, pathlib, sys, zipfile
made = json.load(sys.stdin)
wheel = pathlib.Path(made["wheel"])
with zipfile.ZipFile(wheel, "a") as archive:
    archive.writestr("zz_canary.pth", sys.argv[1] + chr(10))
made["sha256"] = hashlib.sha256(wheel.read_bytes()).hexdigest()
print(json.dumps(made))' '{CANARY}'
  exit 0 ;;
esac
exec "$here/python.real" "$@"
.
chmod 755 python"""
EVIL, TWIN, GOOD, AUTO = NAMES[:4]


@pytest.fixture
def liar(rack: Rack) -> Iterator[Rack]:
    """The first host lies from now on; nothing is decided on any."""
    rack.afresh()
    rack.on(EVIL, LIES)
    yield rack
    rack.on(EVIL, f"cd {ENV}/bin && rm python && mv python.real python")
    for name in NAMES[:4]:
        rack.on(name, f"rm -f {SITE}/zz_canary.pth {OWNED}")


def reached(rack: Rack) -> list[str]:
    """Hosts that the liar's file came to."""
    return [name for name in NAMES[:4] if rack.on(name, f"ls {OWNED} {SITE}/zz_canary.pth 2>/dev/null || true").strip()]


def offered(rack: Rack, names: Sequence[str]) -> dict[str, list[str]]:
    """The rungs that hosts were given wheels by, as they have it on record."""
    return {name: [row["rung"] for row in rack.record(name, "flash_attn")["tried"]] for name in names}


def test_by_default_what_a_host_builds_never_leaves_it_nor_does_its_name(liar: Rack) -> None:
    """A static file without a trust domain; then another machine under the liar's name."""
    del liar.data["defaults"]["trust_domain"]
    liar.write()
    try:
        for name in (EVIL, GOOD):  # one after the other: the liar's wheel is here before the other host asks
            done = liar.run("--limit", name)
            assert done.code == 0, done.stderr
        assert reached(liar) == [EVIL] and liar.builds() == [EVIL, GOOD], done.stderr
        assert offered(liar, [EVIL, GOOD]) == {EVIL: ["build"], GOOD: ["build"]}
        assert len(list((liar.cache / "qwen-rig" / "flash-attn").glob("host-*/*/record.json"))) == 2

        liar.on(GOOD, f"rm -rf {ENV}/.rig/flash_attn.json {JOBS} {SITE}/{standin_wheel.MODULE}*")
        again = liar.folder / "again.yml"
        again.write_text(yaml.safe_dump({"hosts": {EVIL: liar.data["hosts"][GOOD]}, "defaults": {
            **liar.data["defaults"], "known_hosts": str(liar.folder / "known_hosts.again")}}))
        done = liar.deploy("-y", LAB_HOSTS=str(again), XDG_CACHE_HOME=str(liar.cache))
        assert done.code == 0 and "built here" in done.stderr, done.stderr
        assert reached(liar) == [EVIL] and offered(liar, [GOOD]) == {GOOD: ["build"]}
    finally:
        liar.data["defaults"]["trust_domain"] = "rack"
        liar.write()


def test_a_domain_that_a_group_names_shares_and_no_machine_gets_into_it_by_its_own_word(liar: Rack) -> None:
    """Machines as Terraform prints them. Two of a group that group_data gives a domain, one of which takes a pinned
    wheel; one of another group, whose row claims that domain, a group and knobs."""
    project, defaults = liar.folder / "project", {**liar.data["defaults"]}
    del defaults["trust_domain"]
    subprocess.run([sys.executable, "-m", "qwen_rig", "init", str(project)], check=True, capture_output=True)
    (project / "group_data" / "mine.py").write_text('trust_domain = "mine"\n')
    claims = {"trust_domain": "mine", "group": "mine", "groups": ["mine"], "tags": {"trust_domain": "mine"}}
    rows = {name: {"name": name, "address": liar.hosts[name].address, "user": "root", "port": liar.hosts[name].port,
                   **(claims if name == GOOD else {})} for name in NAMES[:4]}
    outputs = {"mine": [rows[EVIL], rows[TWIN]], "pinned": [rows[AUTO]], "rented": [rows[GOOD]]}
    (project / "out.json").write_text(json.dumps({key: {"value": value} for key, value in outputs.items()}))
    sources = {key: {"source": "terraform", "file": str(project / "out.json"), "output": key,
                     "group": "rented" if key == "rented" else "mine"} for key in outputs}
    sources["pinned"]["flash_attn"] = "auto"
    (project / "inventories" / "cloud.yml").write_text(yaml.safe_dump(
        {"defaults": {**defaults, "key": liar.hosts[EVIL].key}, "sources": sources}))

    def run(*more: str) -> Run:
        done = subprocess.run(
            [sys.executable, "-m", "pyinfra", "inventories/cloud.py", *more, "deploy/5090.py"], cwd=project, text=True,
            stdin=subprocess.DEVNULL, capture_output=True, timeout=HANG_S,
            env={**os.environ, "COLUMNS": "160", "XDG_CACHE_HOME": str(liar.cache), "XDG_STATE_HOME":
                 str(liar.folder / "state")})
        return Run(done.returncode, done.stdout, done.stderr)

    first, done = run("-y", "--limit", EVIL), run("-y")
    assert (first.code, done.code) == (0, 0), first.stderr + done.stderr
    assert liar.rungs(NAMES[:4]) == {EVIL: "build", TWIN: "fleet", GOOD: "build", AUTO: "wheel"}, done.stderr
    assert reached(liar) == [EVIL, TWIN], "they share; the pinned wheel goes ahead of the liar's; a claim is no domain"
    assert offered(liar, [GOOD, AUTO]) == {GOOD: ["build"], AUTO: ["wheel"]}
    assert f"built on {EVIL}, domain mine" in done.stderr
    built = liar.record(TWIN, "flash_attn")["built"]
    assert (built["host"], built["domain"]) == (EVIL, "domain-mine")
    (project / "group_data" / "mine.py").unlink()
    dry = " ".join(run("--dry", "--limit", TWIN).stderr.replace("│", " ").split())
    assert f"built on {EVIL}, outside this host's" in dry, dry
