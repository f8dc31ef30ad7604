"""The faults: what breaks a host, its network, a mirror, a job or the controller. Data, but for what only the testbed
can do; each heals again, or is what the next run must mend."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from .lab import ENVS, JOBS, Spot

ENV = f"{ENVS}/qwen-train"
RUNNER, UV = "/var/lib/qwen-rig/job.sh", "/root/.cache/qwen-rig/uv-*/bin/uv"
RECORDS = ("env", "training", "verification", "flash_attn")
SOURCES = "/etc/apt/sources.list.d"
OWN_FILES = (f"{SOURCES}/qwen-rig-nvidia.sources", "/etc/modprobe.d/qwen-rig-nouveau.conf",
             "/etc/apt/apt.conf.d/51qwen-rig-nvidia", "/etc/apt/preferences.d/qwen-rig-nvidia")

# What there is to do when a fault strikes: the host is right before, and this is taken from it.
STARTS = {
    "right": ":",
    "no env": f"rm -rf {ENV} {ENVS}/.qwen-train-*",
    "a package gone": f"rm -r {ENV}/lib/python3*/site-packages/six*",
    "no proof": f"rm -f {ENV}/.rig/verification.json",
    "no guard": "rm -f /etc/modprobe.d/qwen-rig-nouveau.conf",
    "no repository": f"rm -f {SOURCES}/qwen-rig-nvidia.sources",
    "no conda": "rm -rf /root/miniforge3 /root/.conda/environments.txt",
    "no training file": f"rm -f {ENV}/.rig/training.json",
}


@dataclass(frozen=True)
class Fault:
    """`do`: on the host, before the run; `undo`: after it (none: the next run must mend it). `data`: pyinfra's --data;
    `says`: what a card must name, where the run fails by it; `at_work`: what is done while the run's job is at work;
    `around`: words in front of the command line; `whole`: what is done strikes the run, not this host alone."""

    name: str
    do: str = ""
    undo: str = ""
    data: tuple[str, ...] = ()
    says: str = ""
    at_work: Callable[[Spot, Any, Random], None] | None = None
    after: Callable[[Spot], None] | None = None
    before: Callable[[Spot], None] | None = None
    around: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    ends: tuple[int, ...] = (0, 1, 3, 4)
    whole: bool = False

    @property
    def shared(self) -> bool:
        """Whether it strikes the run itself, and so all of its hosts."""
        return bool(self.whole or self.data or self.around or self.environment) or self.ends != Fault("").ends

    @property
    def heals(self) -> bool:
        """Whether what it did is taken back, so that the run after may find more to do."""
        return bool(self.undo or self.data or self.after or self.around or self.environment)


# -- of a right host: the next run mends them --------------------------------------------------------------------

def damages(random: Random) -> list[Fault]:
    """Our files and records, deleted, emptied, filled with rubbish, replaced by folders and links."""
    record, own = random.choice(RECORDS), random.choice(OWN_FILES)
    torn = random.choice([*TORN])
    some = f"$(ls -d {ENV}/lib/python3*/site-packages/*/ | grep -v dist-info | sort | sed -n {random.randint(1, 5)}p)"
    file = f"$(find {some} -name '*.py' -size +0 | sort | sed -n {random.randint(1, 9)}p)"
    return [
        Fault("interpreter deleted", f"rm -f $(readlink -f {ENV}/bin/python)"),
        Fault("a package's file deleted", f'rm -f "{file}"'),
        Fault("a package's file emptied", f': >"{file}"'),
        Fault("a package's metadata torn", f"for f in {ENV}/lib/python3*/site-packages/six-*/METADATA; do : >$f; done"),
        Fault("a package's RECORD deleted", f"rm -f {ENV}/lib/python3*/site-packages/idna-*/RECORD"),
        Fault(f"the Python torn: {torn}", f"cd {ENV}/lib/python3.*/ && {TORN[torn]}"),
        Fault(f"{record}.json emptied", f": >{ENV}/.rig/{record}.json"),
        Fault(f"{record}.json cut off", f"f={ENV}/.rig/{record}.json; head -c 40 $f >$f.x; mv $f.x $f"),
        Fault(f"{record}.json of other types", f"echo '{random.choice(ODD_JSON)}' >{ENV}/.rig/{record}.json"),
        Fault(f"{record}.json a folder", f"rm -f {ENV}/.rig/{record}.json; mkdir -p {ENV}/.rig/{record}.json/x"),
        Fault(f"{record}.json a link to itself", f"ln -sfn {record}.json {ENV}/.rig/{record}.json"),
        Fault("the env's link deleted", f"rm -f {ENV}"),
        Fault("the env's link leads nowhere", f"ln -sfn .qwen-train-000000000000-1 {ENV}"),
        Fault("conda's record of the env gone", f"rm -rf {ENV}/conda-meta"),
        Fault("conda's own program gone", "rm -f /root/miniforge3/bin/conda"),
        Fault("conda's Python gone", "rm -f /root/miniforge3/bin/python*"),
        Fault(f"{own} deleted", f"rm -f {own}"),
        Fault(f"{own} emptied", f": >{own}"),
        Fault(f"{own} of rubbish", f"head -c 300 /dev/urandom >{own}"),
        Fault("a job's state torn", f"for f in {JOBS}/*/state; do head -c 9 $f >$f.x; mv $f.x $f; done"),
        Fault("a job's state of rubbish", f"for f in {JOBS}/*/state; do head -c 300 /dev/urandom >$f; done"),
        Fault("the jobs' folder gone", f"rm -rf {JOBS}"),
        Fault("the job runner torn", f"f={RUNNER}; head -c 100 $f >$f.x; mv $f.x $f; chmod 700 $f"),
        Fault("uv's own copy torn", f"for f in {UV}; do head -c 999 $f >$f.x; mv $f.x $f; chmod 755 $f; done"),
    ]


TORN = {  # in the folder of the standard library
    "a package": "rm -rf json", "a module": "rm -f tempfile.py", "a module emptied": ": >x.x; mv x.x subprocess.py",
    "a module cut off": "head -c 99 typing.py >x.x; mv x.x typing.py",
    "a compiled module": "rm -f lib-dynload/_socket.*",
    "a compiled module cut off": "for f in lib-dynload/_struct.*; do head -c 999 $f >x.x; mv x.x $f; done",
    "libpython": "rm -f ../libpython3.*", "its other name": "rm -f ../../bin/python3",
    "a header": "rm -f ../../include/python3*/Python.h",
    "most of it": "rm -rf [c-p]*.py", "a folder in a module's place": "rm -f shutil.py; mkdir shutil.py"}
ODD_JSON = ("[]", "5", "null", "{}", "[" * 3000, '{"stack": 5, "tried": "x", "checks": 7}', '{"a": 1, "a": 2}',
            '{"lock_sha256": ["x"], "fingerprint": {}, "overall": "pass", "previous": 5}', "NaN", '{"minutes": 1e999}')

# -- what stands in a run's way, and goes again ------------------------------------------------------------------


def _room(size: str) -> Callable[[Spot], None]:
    return lambda spot: spot.bed.room(spot.host, **({size: 0}))


def _roomy(spot: Spot) -> None:
    spot.bed.room(spot.host)


TINY = ('unshare', '--mount', '--propagation', 'private', 'sh', '-c')
FILLED = 'mkdir -p "$XDG_STATE_HOME"; mount -t tmpfs -o size=16k full "$XDG_STATE_HOME"; ' \
         'dd if=/dev/zero of="$XDG_STATE_HOME/fill" 2>/dev/null; exec "$@"'
SEALED = 'mkdir -p "$XDG_STATE_HOME"; mount --bind "$XDG_STATE_HOME" "$XDG_STATE_HOME" && ' \
         'mount -o remount,bind,ro "$XDG_STATE_HOME"; exec "$@"'
HOMELESS = 'mount -t tmpfs -o size=16k,ro none "$HOME"; exec "$@"'


RECORDS_OF = 'find "$XDG_STATE_HOME" "${{XDG_CACHE_HOME:-/nosuch}}" -type f | while read -r f; do {}; done; exec "$@"'
SPOILT = {"cut off": 'head -c 40 "$f" >"$f.x"; mv "$f.x" "$f"', "emptied": ': >"$f"', "of rubbish":
          'head -c 300 /dev/urandom >"$f"', "folders": 'rm "$f"; mkdir "$f"', "unreadable links": 'ln -sfn "$f" "$f"'}
MASTER = 'mkdir -p "$HOME/.ssh"; printf "Host *\\n ControlMaster auto\\n ControlPath /nosuch/%%C\\n" ' \
         '>"$HOME/.ssh/config"; exec "$@"'
LOCKED = """setsid -f python3 -c "import fcntl, os, time
open('/var/tmp/locker', 'w').write(str(os.getpid()))
held = [open(f'/var/lib/dpkg/{{name}}', 'w') for name in ('lock-frontend', 'lock')]
for each in held:
    fcntl.lockf(each, fcntl.LOCK_EX)
time.sleep({s})" >/dev/null 2>&1"""


def obstacles(random: Random, spot: Spot) -> list[Fault]:
    """Full and read-only disks, mirrors that lie or dawdle, names that mean nobody, apt misled, a strict sshd, a
    controller without room."""
    served = spot.bed.services()
    mirror = random.choice(["broken", "lying", "lacking-six", "lying-files", "broken-files"])
    line = random.choice(["deb nonsense", "deb http://192.0.2.1/debian x main", "deb [", "Types: deb\\nURIs:"])
    return [
        Fault("disk full", before=_room("mib"), after=_roomy, says="space|full|GiB free|MiB free|disk"),
        Fault("inodes full", before=_room("inodes"), after=_roomy, says="space|inode|full"),
        Fault("envs read-only", f"mkdir -p {ENVS}; mount --bind {ENVS} {ENVS}; mount -o remount,bind,ro {ENVS}",
              f"umount {ENVS}", says="[Rr]ead-only|written"),
        Fault("jobs' folder read-only", f"mkdir -p {JOBS}; mount --bind {JOBS} {JOBS}; mount -o remount,bind,ro {JOBS}",
              f"umount {JOBS}", says="[Rr]ead-only|written"),
        Fault("/tmp read-only", "mount --bind /tmp /tmp; mount -o remount,bind,ro /tmp", "umount /tmp",
              says="[Rr]ead-only|temporary|written"),
        Fault("name server gone", data=("source_pip_index=http://mirror.invalid:8080/pypi/simple/",),
              says="mirror.invalid"),
        Fault(f"{mirror} index", data=(f"source_pip_index={served.base}/{mirror}/pypi/simple/",), says="index|simple"),
        Fault("slow index", data=(f"source_pip_index={served.base}/slow-six/pypi/simple/",)),
        Fault("hanging index", data=(f"source_pip_index={served.hang}/pypi/simple/", "timeout_fetch=5"),
              says="did not come|seconds|time"),
        Fault("a user's broken apt source", f"printf '{line}\\n' >{SOURCES}/own.list", f"rm {SOURCES}/own.list",
              says="own.list|192.0.2.1"),
        Fault("apt locked for long", LOCKED.format(s=random.randint(5, 40)),
              "kill $(cat /var/tmp/locker) || :"),
        Fault("a ControlMaster of the user's", around=("sh", "-c", MASTER, "sh"),
              environment=(("HOME", f"{spot.lab.folder}/master"),)),
        Fault("MaxSessions 1", "echo MaxSessions 1 >>/etc/ssh/sshd_config; pkill -HUP -x sshd || :; sleep 1",
              "sed -i '/^MaxSessions 1$/d' /etc/ssh/sshd_config; pkill -HUP -x sshd || :; sleep 1"),
        Fault("controller's state full", around=(*TINY, FILLED, "sh")),
        Fault("controller's state read-only", around=(*TINY, SEALED, "sh")),
        *(Fault(f"controller's records {how}", around=("sh", "-c", RECORDS_OF.format(act), "sh"))
          for how, act in SPOILT.items()),
        Fault("controller's HOME read-only", around=(*TINY, HOMELESS, "sh"), environment=(("HOME", "/srv"),)),
        Fault("a profile that prints", "cp -p /root/.bashrc /root/.b; sed -i '1i echo hello' /root/.bashrc",
              "mv /root/.b /root/.bashrc"),
    ]

# -- while a job is at work ----------------------------------------------------------------------------------------


def _begun(spot: Spot, process: Any) -> bool:
    """Return when a job is at work; False where the run ended without one."""
    while process.poll() is None:
        if spot.on("pgrep -f '[j]ob.sh body' || :"):
            return True
        time.sleep(0.3)
    return False


def _moment(random: Random) -> None:
    time.sleep(random.uniform(0, 3))


def _shell(script: str) -> Callable[[Spot, Any, Random], None]:
    def act(spot: Spot, process: Any, random: Random) -> None:
        if _begun(spot, process):
            _moment(random)
            spot.on(script)
    return act


def _cable(spot: Spot, process: Any, random: Random) -> None:
    if _begun(spot, process):
        _moment(random)
        spot.bed.cable(spot.host, up=False)
        time.sleep(random.uniform(0.5, 8))
        spot.bed.cable(spot.host, up=True)


def _power(spot: Spot, process: Any, random: Random) -> None:
    if _begun(spot, process):
        _moment(random)
        spot.bed.kill(spot.host)
        time.sleep(random.uniform(0, 2))
        spot.bed.boot(spot.host)


def _reboot(spot: Spot, process: Any, random: Random) -> None:
    if _begun(spot, process):
        _moment(random)
        spot.bed.reboot(spot.host)


def _signal(number: int) -> Callable[[Spot, Any, Random], None]:
    def act(spot: Spot, process: Any, random: Random) -> None:
        if _begun(spot, process):
            _moment(random)
            if process.poll() is None:
                os.kill(process.pid, number)
    return act


def _second(spot: Spot, process: Any, random: Random) -> None:
    if _begun(spot, process):
        said = spot.lab.folder / "second.log"
        spot.lab.end(spot.lab.begin(said), said)


def _full(spot: Spot, process: Any, random: Random) -> None:
    if _begun(spot, process):
        spot.bed.room(spot.host, **{random.choice(["mib", "inodes"]): random.randint(0, 3)})


# Whatever a job runs is counted, and at the chosen call the job and its runner are gone, as by a power cut: so each of
# the moments between two of our commands is met, the link's flip among them.
CUT = """mkdir -p /var/tmp/cut; echo {at} >/var/tmp/cut/left
for tool in {tools}; do
  real=$(command -v $tool); [ ! -e /usr/local/bin/$tool ] || continue
  cat >/usr/local/bin/$tool <<END
#!/bin/sh
path=\\$PATH PATH=/usr/bin:/bin # what is called here is no such program as this one
if [ -n "\\$QWEN_RIG_JOB" ] && read -r n 2>/dev/null </var/tmp/cut/left; then
  if [ "\\$n" -le 0 ]; then
    rm -f /var/tmp/cut/left
    [ {late} = 0 ] || "$real" "\\$@"
    pkill -KILL -f '[j]ob.sh supervise'
    for p in \\$(grep -lzs '^QWEN_RIG_JOB=' /proc/[0-9]*/environ | cut -d/ -f3); do
      [ \\$p = \\$\\$ ] || kill -KILL \\$p
    done
    kill -KILL \\$\\$
  fi
  echo \\$((n - 1)) >/var/tmp/cut/left
fi
PATH=\\$path
exec "$real" "\\$@"
END
  chmod 755 /usr/local/bin/$tool
done"""
TOOLS = ("mv", "ln", "rm", "mkdir", "cat", "mktemp", "sed")
UNCUT = "rm -rf /var/tmp/cut; for tool in " + " ".join(TOOLS) + "; do rm -f /usr/local/bin/$tool; done"


def strokes(random: Random) -> list[Fault]:
    """Kills, cuts, reboots and signals while a job is at work."""
    tools = " ".join(random.sample(TOOLS, random.choice([1, 1, 2, len(TOOLS)])))
    cut = CUT.format(at=random.randint(0, 9), tools=tools, late=random.randint(0, 1))
    return [
        Fault("a job cut between two commands", cut, UNCUT),
        Fault("the flip cut", CUT.format(at=random.randint(0, 2), tools="ln mv", late=random.randint(0, 1)), UNCUT),
        Fault("a job's processes killed", at_work=_shell("pkill -KILL -f '[j]ob.sh body'")),
        Fault("a job's runner killed", at_work=_shell("pkill -KILL -f '[j]ob.sh supervise'")),
        Fault("the installer killed", at_work=_shell("pkill -KILL -x 'uv|pip|conda|python3.*' || :")),
        Fault("sshd's child killed", at_work=_shell("pkill -KILL -f '^sshd: [a-z]' || :")),
        Fault("the cable pulled", at_work=_cable),
        Fault("the power cut", at_work=_power),
        Fault("rebooted", at_work=_reboot),
        Fault("the disk fills up", at_work=_full, after=_roomy),
        Fault("two runs at once", at_work=_second, whole=True),
        Fault("SIGINT", at_work=_signal(signal.SIGINT), ends=(0, 130)),
        Fault("SIGTERM", at_work=_signal(signal.SIGTERM), ends=(0, 143)),
        Fault("SIGHUP", at_work=_signal(signal.SIGHUP), ends=(0, 129)),
        Fault("the controller killed", at_work=_signal(signal.SIGKILL), ends=(0, -9)),
    ]
