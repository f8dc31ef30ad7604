"""The parts of the run: each is the documented command lines, what must come of them, and the figures they gave.

A part that has succeeded isn't run again; one that ran out of time says what goes on, and goes on when called again.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from .failures import failures
from .kernels import fa4, gated_delta, right
from .machine import HOST, Machine, env, up
from .runner import PYINFRA, RIG, Command, Failed, GoesOn, Part, Runner, unchanged
from .trained import sizes, train

CUT_S = 60  # a build's controller lives so long
BUSY = ("import torch, time; kept = torch.empty(8 << 30, dtype=torch.uint8, device='cuda'); print('busy', flush=True); "
        "time.sleep(600)")


def ready(run: Runner) -> None:
    """The machine is a host: venv, sshd, index, stack."""
    up(run.machine)
    run.part.figures = {"lock_lines": (run.machine.product / "device.lock.txt").read_text().count("\n"),
                        "machine": run.machine.ask("import platform; print(platform.platform())")}


def dry(run: Runner) -> None:
    """What would change; nothing does."""
    said = run.command("pyinfra", "inventories/lab.py", "deploy/5090.py", "--dry")
    run.expect("Env qwen-train" in said and not (env(run.machine) / ".rig").exists(), "a dry run that changes nothing")


def cut(run: Runner) -> None:
    """The controller is killed within the env's step; nothing half done counts as done."""
    run.command("timeout", "-s", "KILL", "12", *PYINFRA, good=(137, -9))


def apply(run: Runner) -> None:
    """Bare (or cut) to proven."""
    run.command(*PYINFRA)
    record = json.loads((env(run.machine) / ".rig/verification.json").read_text())
    run.part.figures = {"env_mib": _mib(env(run.machine).resolve()), "checks": record.get("checks")}


def again(run: Runner) -> None:
    """The second run changes nothing."""
    said = run.command(*PYINFRA)
    rows = unchanged(run, said)
    run.command(*RIG, "plan")
    run.part.figures = {"seconds": run.part.commands[0].seconds, "operations": rows}


def certify(run: Runner) -> None:
    """Two certificates of each card, and what differs between them."""
    for _ in range(2):
        run.command("pyinfra", "-y", "inventories/lab.py", "deploy/certify.py")
    made = _certificates(run.machine)
    uuids = list(dict.fromkeys(path.parent.name for path in made))
    run.part.figures = {"certificates": [json.loads(path.read_text()) for path in made[-2 * len(uuids):]]}
    for uuid in uuids:
        run.command(*RIG, "certificate", "diff", uuid)
    run.command(*RIG, "certificate", "html", uuids[0], "-o", str(run.machine.work / "certificate.html"))


def doors(run: Runner) -> None:
    """The verbs that read."""
    for words in (["explain", HOST, "env"], ["fits", HOST], ["doctor", HOST], ["diff"], ["certificate", "list"]):
        run.command(*RIG, *words)
    run.command("pyinfra", "inventories/lab.py", "fact", "facts.gpu.Gpus", "--json")


def busy(run: Runner) -> None:
    """A certificate of a card that somebody uses is partial: it names who, and doesn't fill the memory."""
    before = set(_certificates(run.machine))
    with _user_of_the_card(run.machine) as pid:
        said = run.command("pyinfra", "-y", "inventories/lab.py", "deploy/certify.py")
    made = [json.loads(path.read_text()) for path in _certificates(run.machine) if path not in before]
    run.part.figures = {"certificates": made}
    run.expect(f"pid {pid}" in said, f"the process {pid} that uses the card is named")
    states = [(each["overall"], next(row["status"] for row in each["checks"] if row["name"] == "memory"))
              for each in made]
    run.expect(("partial", "not_run") in states, f"a partial certificate among {states}")


def full(run: Runner) -> None:
    """A disk with too little room is refused before anything is fetched."""
    with _full(run.machine.work):
        said = run.command(*PYINFRA, "--data", "env_name=second", good=(1,))
    run.expect("MiB" in said or "GiB" in said, "the room that is missing is told")
    run.expect(not env(run.machine, "second").exists(), "nothing was begun")


def build(run: Runner) -> None:
    """flash-attn is built: its first controller is killed with -9, the build goes on, the next one attaches to it."""
    kept = run.machine.work / "build-cut"
    words = ["--data", "flash_attn=build", "--data", f"flash_attn_jobs={_jobs()}"]
    if not kept.exists():
        kept.write_text(" ".join(words))
        run.command("timeout", "-s", "KILL", str(CUT_S), *PYINFRA, *words, good=(137, -9))
        raise GoesOn("its controller was killed, and the build goes on on the host: run this part again")
    words = kept.read_text().split()  # the job is known by them
    said = run.command(*PYINFRA, *words, good=(0, -9))
    if run.part.commands[-1].code:
        raise GoesOn("the build goes on on the host: run this part again")
    right(run, "build")
    run.part.figures["attached"] = "attached" in said
    unchanged(run, run.command(*PYINFRA, *words))


def _jobs() -> int:
    """As many compile jobs as the machine has cores and memory for: the guide's 8 take 45 minutes, 16 took 24."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return max(1, min(os.cpu_count() or 1, memory // (6 << 30)))


PARTS: dict[str, Callable[[Runner], None]] = {each.__name__: each for each in (
    ready, dry, cut, apply, again, certify, doors, busy, full, build, train, sizes, gated_delta, fa4, failures)}
ORDER = [*PARTS, "build"]  # a build that goes on meanwhile is seen through at the end


def go(machine: Machine, name: str, anew: bool) -> Part:
    """Run one part, or tell how it ended before. Its record lies in the work folder."""
    path = machine.work / "parts" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and not anew:
        found = json.loads(path.read_text())
        if found["state"] == "done":
            return Part(**{**found, "commands": [Command(**each) for each in found["commands"]]})
    part = Part(name, began=time.time())
    try:
        PARTS[name](Runner(machine, part))
        part.state = "done"
    except GoesOn as why:
        part.state, part.why = "goes on", str(why)
    except (Failed, OSError, ValueError, LookupError, RuntimeError, subprocess.CalledProcessError) as why:
        part.why = f"{type(why).__name__}: {why}"
    part.seconds = round(time.time() - part.began, 1)
    path.write_text(json.dumps(asdict(part), indent=1))
    return part


def _certificates(machine: Machine) -> list[Path]:
    return sorted((machine.home / ".local/state/qwen-rig/certificates").glob("*/*.json"), key=lambda path: path.name)


def _mib(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_symlink() and path.is_file()) >> 20


@contextmanager
def _user_of_the_card(machine: Machine) -> Iterator[int]:
    """A process that holds 8 GiB of the card."""
    with subprocess.Popen([machine.torch_python, "-c", BUSY], stdout=subprocess.PIPE, text=True) as one:
        try:
            assert one.stdout is not None
            one.stdout.readline()
            yield one.pid
        finally:
            one.kill()


@contextmanager
def _full(folder: Path, left_mib: int = 500) -> Iterator[None]:
    """A disk on which so little is left."""
    found = os.statvfs(folder)
    path = folder / "filler"
    try:
        with path.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, max(1, found.f_bavail * found.f_frsize - (left_mib << 20)))
        yield
    finally:
        path.unlink(missing_ok=True)
