"""Runs on the host, under the env's python: build one wheel from source, within bounds, and say how it went.

Usage: flash_build.py --source FILE|URL|git+URL --sha256 HEX --archs 90 --jobs 8 --limit-s 7200 --out DIR …

The env stays as it is: sources, tools and temporary files live in DIR/work, which is gone at the end; DIR holds the
wheel, build.log and result.json. Progress goes to standard output as `@progress 31 73 kernels`, the result is its last
line, one JSON object:
  {ok: true, wheel, bytes, sha256, source, source_sha256, version, archs (read from the .so), objects, minutes,
   peak_mib, jobs, nvcc, torch}   or   {ok: false, why, last (telling lines), begun (a compiler), minutes, …}
Exits 0 with a wheel, 1 without. Refuses before it begins where nvcc can't compile what torch and the cards need.
"""

import argparse
import collections
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time
from pathlib import Path

import fatbin  # beside this file, both
from flash_ready import Failed, ask_torch, choose_nvcc, digest, fetch, nvccs, require

GRACE_S = 60  # beside the limit, for what comes before the build
SAMPLE_S = 0.5  # how often memory and the clock are looked at
KEPT_LINES, TOLD_LINES, WIDTH = 400, 8, 240
# As pip would do it without isolation: setuptools' own way for sources that have a setup.py alone.
BUILD_WHEEL = "import sys; from setuptools.build_meta import __legacy__ as made; made.build_wheel(sys.argv[1])"
OBJECT = re.compile(r"^\s*\[(\d+)/(\d+)\]")  # ninja, when an object is done
TELLING = re.compile(r"(?i)error\b|fatal|killed|no space left|cannot allocate|bad_alloc|undefined|not found|failed|"
                     r"refused|mismatch|traceback|died due to signal|exception")
DISK = re.compile(r"(?i)no space left on device|disk quota exceeded|errno 28")
MEMORY = re.compile(r"(?i)cannot allocate memory|bad_alloc|memoryerror|out of memory|signal 9\b|killed signal|sigkill")

def oom_kills():
    """How many processes of this cgroup the kernel has ended for want of memory; 0 where it can't be told."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, kinds, path = line.split(":", 2)
            names = ((f"/sys/fs/cgroup{path}/memory.events", "/sys/fs/cgroup/memory.events") if not kinds else
                     (f"/sys/fs/cgroup/memory{path}/memory.oom_control", "/sys/fs/cgroup/memory/memory.oom_control")
                     if "memory" in kinds.split(",") else ())
            for name in names:
                with contextlib.suppress(OSError):
                    if counted := re.search(r"^oom_kill (\d+)", Path(name).read_text(), re.MULTILINE):
                        return int(counted[1])
    return 0


def session(leader):
    """pid → resident MiB of every process of a session."""
    found, page = {}, os.sysconf("SC_PAGE_SIZE")
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with contextlib.suppress(OSError, ValueError, IndexError):
                fields = Path(entry.path, "stat").read_text().rpartition(")")[2].split()
                if int(fields[3]) == leader:  # the session; field 6 of proc(5)'s stat
                    found[int(entry.name)] = int(fields[21]) * page / 2**20
    return found


def end(leader):
    """End every process of a session, however many groups it has made."""
    for _ in range(3):
        for pid in session(leader):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


class Build:
    """The compiler's run: one session of processes, its output, what it has done and taken so far."""

    def __init__(self, command, folder, environment, log, say, oom):
        self.lines, self.done, self.total, self.peak = collections.deque(maxlen=KEPT_LINES), 0, 0, 0.0
        self.say, self.log = say, log
        # When memory is out, the kernel shall end a compiler and neither sshd nor the job.
        raised = ["sh", "-c", 'echo "$1" 2>/dev/null >/proc/self/oom_score_adj; shift; exec "$@"',
                  "sh", str(oom), *command]
        self.process = subprocess.Popen(raised, cwd=folder, env=environment, stdin=subprocess.DEVNULL,
                                        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
                                        start_new_session=True)
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        for line in self.process.stdout:
            self.lines.append(line.rstrip())
            with contextlib.suppress(OSError):  # a full disk is the build's to tell
                self.log.write(line)
                self.log.flush()
            if found := OBJECT.match(line):
                self.done, self.total = int(found[1]), int(found[2])
                self.say(f"@progress {self.done} {self.total} kernels")

    def wait(self, seconds):
        """Its exit status; None where it was ended by the clock."""
        deadline = time.monotonic() + seconds
        try:
            while self.process.poll() is None:
                self.peak = max(self.peak, sum(session(self.process.pid).values()))
                if time.monotonic() > deadline:
                    return None
                time.sleep(SAMPLE_S)
            return self.process.returncode
        finally:
            end(self.process.pid)
            self.process.wait()
            self.reader.join(5)

    def telling(self):
        """The last lines that tell why it failed; the very last ones where none does."""
        lines = [line.strip()[:WIDTH] for line in self.lines if line.strip() and not OBJECT.match(line)]
        return ([line for line in lines if TELLING.search(line)] or lines)[-TOLD_LINES:]


def why_not(build, code, limit, kills, free):
    """One line: what ended a build that left no wheel."""
    said = "\n".join(build.lines)
    done = f" after {build.done} of {build.total} objects" if build.total else ""
    if code is None:
        return f"out of time{done}: ended after {f'{limit / 60:.0f} min' if limit >= 120 else f'{limit} s'}"
    if DISK.search(said) or free < 1:
        return f"disk full{done}: no space left on the device"
    if kills or code == -9 or MEMORY.search(said):
        counted = f" (the kernel ended {kills} of its processes)" if kills else ""
        return f"out of memory{done}{counted}: fewer jobs need less"
    return f"the build failed{done}: exit status {code}"


def finished(out, asked):
    """The good result of this very build where one was left here (nobody was there to take it), else None."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        made = json.loads((out / "result.json").read_text())
        if made["ok"] and made["asked"] == asked and digest(made["wheel"]) == made["sha256"]:
            return made
    return None


def attempt(o, say):
    """The result of one build, good or bad. `o`: the parsed arguments."""
    out, asked = Path(o.out), json.loads(json.dumps(vars(o)))
    if made := finished(out, asked):
        return made
    work = out / "work"
    shutil.rmtree(work, ignore_errors=True)
    began, build, about = time.monotonic(), None, {"jobs": o.jobs}
    try:
        (work / "tmp").mkdir(parents=True)
        (work / "made").mkdir()
        free = shutil.disk_usage(work).free >> 20
        if free < o.free_mib:
            raise Failed(f"{free} MiB are free at {out}, and a build takes {o.free_mib}")
        environment = surroundings(o, work, about)
        source, about["source_sha256"] = fetch(o.source, o.sha256, work, 900, o.index)
        require(o.requires, o.wheels, o.index, work / "site")
        say(f"building {o.source.rpartition('/')[2]} with {o.jobs} jobs")
        command = [sys.executable, "-c", BUILD_WHEEL, str(work / "made")]
        kills = oom_kills()
        with open(out / "build.log", "w", encoding="utf-8", errors="replace") as log:
            build = Build(command, source, environment, log, say, o.oom)
            signal.alarm(0)  # from here on, the build has its own
            code = build.wait(max(1.0, o.limit_s - (time.monotonic() - began)))
        if code != 0:
            free = shutil.disk_usage(work).free >> 20
            raise Failed(why_not(build, code, o.limit_s, oom_kills() - kills, free), build.telling())
        wheel = kept(o, work, out, build, about)
        found = {"ok": True, "asked": asked, "wheel": wheel, "source": o.source, **about}
    except Failed as failed:
        found = {"ok": False, "why": str(failed), "last": failed.last, "begun": build is not None, **about}
    except (OSError, tarfile.TarError, subprocess.TimeoutExpired) as error:
        full = isinstance(error, OSError) and DISK.search(str(error))
        why = "disk full: no space left on the device" if full else f"{type(error).__name__}: {error}"
        found = {"ok": False, "why": why, "last": build.telling() if build else [], "begun": build is not None, **about}
    finally:
        shutil.rmtree(work, ignore_errors=True)
    if build:
        found |= {"objects": build.done, "peak_mib": round(build.peak)}
    return {**found, "minutes": round((time.monotonic() - began) / 60, 2)}


def surroundings(o, work, about):
    """The environment of the build. Into `about`: the torch and the nvcc that it is built for and by."""
    environment = {**os.environ, "TMPDIR": str(work / "tmp"), "MAX_JOBS": str(o.jobs), "NVCC_THREADS": "1",
                   "FLASH_ATTENTION_FORCE_BUILD": "TRUE", "PYTHONUNBUFFERED": "1"}
    path = [str(work / "site" / "bin")]
    if not o.no_cuda:
        about["torch"], cuda, _ = ask_torch()
        about["nvcc"], home = choose_nvcc(nvccs(), cuda, o.nvcc)
        environment |= {"CUDA_HOME": home, "FLASH_ATTN_CUDA_ARCHS": ";".join(o.archs)}
        path.append(f"{home}/bin")
    environment["PATH"] = os.pathsep.join([*path, os.environ.get("PATH", os.defpath)])
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(work / "site"), os.environ.get("PYTHONPATH")]))
    return environment


def kept(o, work, out, build, about):
    """The path of the one wheel that a build left, looked at and moved out of the work folder. Raises Failed."""
    wheels = list((work / "made").glob("*.whl"))
    if len(wheels) != 1:
        raise Failed(f"the build ended well and left {len(wheels)} wheels", build.telling())
    about |= checked(wheels[0], [] if o.no_cuda else o.archs)
    os.replace(wheels[0], out / wheels[0].name)
    return str(out / wheels[0].name)


def checked(wheel, archs):
    """What a finished wheel is. Raises Failed where its .so lacks code for an architecture that was asked for."""
    try:
        have = fatbin.archs_of_wheel(wheel)
    except fatbin.NotRead as error:
        raise Failed(f"{wheel.name}: its .so can't be read: {error}") from None
    lacking = [f"sm_{arch}" for arch in archs if f"sm_{arch}" not in have]
    if lacking:
        raise Failed(f"{wheel.name} has no code for {', '.join(lacking)}: only for {', '.join(have) or 'nothing'}")
    return {"version": wheel.name.split("-")[1], "bytes": wheel.stat().st_size, "sha256": digest(wheel), "archs": have}


def words(text):
    """A comma-separated list."""
    return [word for word in text.split(",") if word]


def parser():
    """The arguments; every bound is given, none is this program's own."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--source", required=True, help="an sdist's path or URL, or git+URL for a branch's head")
    made.add_argument("--sha256", help="of the sdist; another one isn't built")
    made.add_argument("--archs", type=words, default=[], help="of the cards, as 90,120")
    made.add_argument("--nvcc", default="0.0", help="the least release that can compile for them")
    made.add_argument("--no-cuda", action="store_true", help="the package needs neither torch nor nvcc (a stand-in)")
    made.add_argument("--requires", type=str.splitlines, default=[],
                      help="what the build needs, a line of a lock each: ninja==1.13.2 --hash=sha256:…")
    made.add_argument("--index", help="the package index that has both; the sources are then named by their file")
    made.add_argument("--wheels", help="a folder to take them from, instead of the package index")
    made.add_argument("--jobs", type=int, required=True, help="compilers side by side")
    made.add_argument("--limit-s", type=int, required=True, help="seconds for the whole build")
    made.add_argument("--free-mib", type=int, default=0, help="room that must be free at DIR")
    made.add_argument("--oom", type=int, default=1000, help="oom_score_adj of the compilers")
    made.add_argument("--out", required=True, metavar="DIR")
    return made


def expired(*_):
    """The alarm: fetching, too, has an end."""
    raise Failed("out of time before a compiler was begun")


def main():
    options = parser().parse_args()
    signal.signal(signal.SIGALRM, expired)
    signal.alarm(options.limit_s + GRACE_S)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that `finally` ends the compilers too
    Path(options.out).mkdir(parents=True, exist_ok=True)
    found = attempt(options, lambda text: print(text, flush=True))
    with contextlib.suppress(OSError):
        (Path(options.out) / "result.json").write_text(json.dumps(found, indent=1))
    for line in found.get("last", []):
        print(line)
    print(json.dumps(found), flush=True)
    return 0 if found["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
