"""What was put on a host, looked at and removed there. What it is, is in qwen_rig/finetune/leaving.py."""

from __future__ import annotations

from qwen_rig import ledger
from qwen_rig.errors import RigError
from qwen_rig.facts._conda import OURS
from qwen_rig.finetune import leaving
from qwen_rig.finetune.leaving import Thing
from qwen_rig.frozen import frozen
from qwen_rig.program import load

from . import adapter, memory
from .adapter import Host
from .converge import run_script, script
from .run import Run

REMOVE = load("host/remove.sh")
SECONDS = 900  # an env has 100,000 files, on the slowest disk
ROOTS_JOBS = "/var/lib/qwen-rig/jobs"


@frozen
class Leaving:
    """One host's plan: what goes, and what stays, in words."""

    host: str
    things: tuple[Thing, ...]
    stays: tuple[str, ...]


def look(host: Host, runs: bool, conda: bool) -> Leaving:
    """What qwen-rig has there. Raises RigError where one of our jobs is at work."""
    ctx = Run.of(host).memory.context(host)
    marked = _marked(host) if conda else []
    asked = leaving.things(ctx, runs, marked)
    found: list[Thing] = []
    for part, output in _both(host, asked, "look"):
        there, busy = leaving.read(output, part)
        if busy:
            raise RigError(f"running on the host: {', '.join(busy)}", "", "wait for it, or stop it: qwen-rig runs")
        found += there
    return Leaving(host.name, tuple(found), tuple(leaving.stays(ctx, runs, marked)))


def _marked(host: Host) -> list[str]:
    """The condas there that bear our mark."""
    marks = {f"{prefix}/{OURS}": prefix for prefix in leaving.prefixes(Run.of(host).memory.context(host))}
    asked = [Thing("file", mark, "") for mark in marks]
    if not asked:
        return []
    _, output = run_script(host, REMOVE(*leaving.words(asked), **_fixed(host, "look")), 60)
    return [marks[each.path] for each in leaving.read(output, asked)[0]]


def remove(host: Host, runs: bool, conda: bool) -> list[Thing]:
    """Remove it; what went."""
    run = Run.of(host)
    ctx, marked = run.memory.context(host), _marked(host) if conda else []
    asked, gone = leaving.things(ctx, runs, marked), list[Thing]()
    for part, output in _both(host, asked, "remove"):
        gone += leaving.read(output, part)[0]
    ledger.forget(host.name, memory.address(host))
    run.memory.forget(host)
    mib = sum(each.kib for each in gone) / 1024
    run.report.outcomes[host.name] = ("✓ removed", f"{len(gone)} things, {mib:.0f} MiB") if gone else \
        ("✓ no change", "qwen-rig has nothing there")
    return gone


def _fixed(host: Host, act: str) -> dict[str, str]:
    user = Run.of(host).memory.context(host).machine.user
    home = user.home.rstrip("/")
    jobs = ROOTS_JOBS if user.uid == 0 else f"{home}/.local/state/qwen-rig/jobs"
    return {"act": act, "jobs": jobs, "lines_of": f"{home}/.conda/environments.txt"}


def _both(host: Host, asked: list[Thing], act: str) -> list[tuple[list[Thing], str]]:
    """(the things, what remove.sh printed) of our own part and of root's. Raises RigError where it fails."""
    machine, fixed, made = Run.of(host).memory.context(host).machine, _fixed(host, act), []
    for root in (False, True):
        part = [each for each in asked if each.root is root]
        sudo = root and machine.user.uid != 0
        if not part:
            continue
        more = {**fixed, "jobs": ROOTS_JOBS} if root else fixed
        ok, output, lines = adapter.execute(host, script(REMOVE(*leaving.words(part), **more), SECONDS), sudo)
        if not ok and "busy" not in output:
            said = next((line for line in lines if line.startswith("qwen-rig: ")), lines[-1] if lines else "no word")
            raise RigError(f"it could not be {'looked at' if act == 'look' else 'removed'}: "
                           f"{said.removeprefix('qwen-rig: ')}", "", "mend that, and run the same command again")
        made.append((part, output))
    return made
