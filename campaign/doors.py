"""A sample of bad input through both doors, in processes of their own: pyinfra's command line and ours."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from random import Random

from . import tally
from .tally import Tally

ROOT = Path(__file__).resolve().parents[1]
DEPLOY = ("inventories/lab.py", "deploy/5090.py")
HANG_S = 120
OWN = re.compile(r"[\w. -]+: .+ · .+|--> pyinfra error: No deploy file")
NOBODY = "192.0.2.1"  # TEST-NET-1 (RFC 5737): nobody answers


@dataclass(frozen=True)
class Case:
    """Words of a command line and what stands in its environment; the run must end in one line and with 1."""

    words: tuple[str, ...]
    environment: tuple[tuple[str, str], ...] = ()
    lab: str = f"hosts: {{lab-01: {{address: {NOBODY}}}}}\n"
    cwd: str = ""
    bad: bool = True


def case(random: Random) -> Case:
    """One command that can't be meant."""
    long, name = "x" * random.randint(300, 5000), "".join(random.choices("abcdefgh", k=6))
    pyinfra = ("pyinfra", "-y")
    bad = random.choice([
        Case((*pyinfra, f"inventories/{name}.py", DEPLOY[1])), Case((*pyinfra, DEPLOY[0], f"deploy/{name}.py")),
        Case((*pyinfra, *DEPLOY, "--limit", name)), Case((*pyinfra, *DEPLOY, "--limit", "lab-01", "--limit", name)),
        Case((*pyinfra, *DEPLOY, "--port", str(random.randint(65536, 10 ** 9)))),
        Case((*pyinfra, *DEPLOY, "--data", f"{name}={name}")), Case((*pyinfra, *DEPLOY, "--config", f"{name}.py")),
        Case((*pyinfra, *DEPLOY, "--key", f"/{name}")), Case((*pyinfra, *DEPLOY, "--chdir", f"/{name}")),
        Case((*pyinfra, *DEPLOY, "--group-data", name)), Case((*pyinfra, *DEPLOY, "--sudo-user", name)),
        Case((*pyinfra, f"{ROOT}/{DEPLOY[0]}", f"{ROOT}/{DEPLOY[1]}"), cwd="/"),
        Case((*pyinfra, *DEPLOY), (("LAB_HOSTS", f"/{name}/{long}"),)),
        Case((*pyinfra, *DEPLOY), (("LAB_HOSTS", f"~{name}/lab.yml"),)),
        Case((*pyinfra, *DEPLOY), (("HOME", f"/{name}"), ("XDG_STATE_HOME", ""))),
        Case((*pyinfra, *DEPLOY), (("HOME", ""), ("XDG_STATE_HOME", f"~{name}/x"))),
        Case((*pyinfra, *DEPLOY), lab="[" * random.randint(100, 50_000)),
        Case((*pyinfra, *DEPLOY), lab="hosts: {lab-01: {address: -oProxyCommand=x}}\n"),
        Case((*pyinfra, *DEPLOY), lab=f"hosts: {{lab-01: {{address: {NOBODY}, conda_prefix: /}}}}\n"),
        Case(("qwen_rig", "plan", "-i", f"{name}.yml")), Case(("qwen_rig", "plan", "-i", long)),
        Case(("qwen_rig", "plan", "--data", f"env_name=-{name}")), Case(("qwen_rig", "plan", "--limit", name)),
        Case(("qwen_rig", "apply", f"{name}.json")), Case(("qwen_rig", name)), Case(("qwen_rig", "diff", name)),
        Case(("qwen_rig", "fits", "--memory", "²")), Case(("qwen_rig", "doctor", "--log", f"/{name}")),
        Case(("qwen_rig", "plan"), (("XDG_CACHE_HOME", "/dev/null"), ("HOME", f"/{name}"), ("XDG_STATE_HOME", ""))),
        Case(("testbed", "--instance", f"../{name}", "down")), Case(("testbed", name)),
        Case(("testbed.demo", f"--{name}")), Case(("benchmarks.noop", f"--{name}")),
        Case(("qwen_rig", "--help"), (("COLUMNS", random.choice(["", "abc", "0", "²", "-1"])),
                                      ("TERM", random.choice(["", "dumb", name]))), bad=False),
    ])
    return bad


def throw(score: Tally, count: int, more: Callable[[], bool], at_once: int = 2) -> None:
    """So many cases, a few side by side."""
    random = Random(score.seed)
    cases = [case(random) for _ in range(count)]
    with tempfile.TemporaryDirectory(prefix="campaign-") as folder, ThreadPoolExecutor(at_once) as pool:
        list(pool.map(lambda pair: _one(score, pair[1], Path(folder) / str(pair[0])) if more() else None,
                      enumerate(cases)))


def _one(score: Tally, wanted: Case, folder: Path) -> None:
    folder.mkdir()
    (folder / "lab.yml").write_text(wanted.lab, encoding="utf-8")
    kind = f"doors: {wanted.words[0]}"
    score.thrown(kind)
    environment = {**os.environ, "LAB_HOSTS": str(folder / "lab.yml"), "XDG_STATE_HOME": str(folder / "state"),
                   "PYTHONPATH": str(ROOT), **dict(wanted.environment)}
    began = time.monotonic()
    try:
        done = subprocess.run([sys.executable, "-m", *wanted.words], cwd=wanted.cwd or ROOT, env=environment, text=True,
                              stdin=subprocess.DEVNULL, capture_output=True, timeout=HANG_S, errors="replace")
    except subprocess.TimeoutExpired:
        score.found(tally.SLOW, kind, wanted, f"no end after {HANG_S} s")
        return
    said = f"{done.stdout}{done.stderr}"
    if re.search("[Tt]raceback", said) or "mistake of qwen-rig's" in said:
        score.found(tally.TRACEBACK, kind, wanted, said[-1500:])
    if "Connected" in said or "could not connect" in said:
        score.found(tally.DIALLED, kind, wanted, said[-500:])
    if wanted.bad != (done.returncode == 1) or (not wanted.bad and done.returncode):
        counted = tally.TAKEN if done.returncode == 0 else tally.EXIT
        score.found(counted, kind, wanted, f"{done.returncode}: {said[-500:]}")
    own = [line for line in done.stderr.splitlines() if OWN.match(line)]
    if wanted.bad and done.returncode == 1 and len(own) != 1:
        score.found(tally.UNCLEAR, kind, wanted, said[-500:])
    if time.monotonic() - began > HANG_S / 2:
        score.found(tally.SLOW, kind, wanted, f"{time.monotonic() - began:.0f} s")
