"""A reboot where the loaded driver isn't the installed one; then the host is probed and planned again."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress

from qwen_rig.plan import Context, Step
from qwen_rig.program import load
from qwen_rig.run.adapter import FunctionCommand, Host, State, StringCommand
from qwen_rig.run.converge import Applier, run_script, script
from qwen_rig.run.job import JobCommand
from qwen_rig.run.job_protocol import Job
from qwen_rig.run.memory import ProbeFailed
from qwen_rig.run.run import Run

UNLOCKED = load("shell/apt.sh", "deploy/repository/lock.sh")
REFUSED = {"refused": "/run/qwen-rig.reboot"}  # root's folder, gone with the boot
REBOOT, BOOT_ID = load("deploy/reboot/reboot.sh"), load("deploy/reboot/boot_id.sh")


def commands(run: Run, ctx: Context, step: Step) -> Iterator[StringCommand | FunctionCommand]:
    """The wait for apt's lock, as an upgrade that a reboot cuts off leaves half a system; the reboot, and the wait for
    the host's return."""
    lock_s = ctx.knobs.timeout_apt_lock
    yield JobCommand(Job("apt-lock", "Waiting for apt", UNLOCKED(lock_s=str(lock_s)), lock_s + 60))
    yield script(REBOOT(**REFUSED), 30)
    yield FunctionCommand(_come_back, (ctx.machine.boot_id, ctx.knobs.timeout_reboot), {})


def _come_back(state: State, host: Host, boot_id: str | None, seconds: int) -> bool:
    """Wait for another boot id, probe again, and say what the new plan thinks of the driver."""
    run, end = Run.of(host), time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(2)
        if not run.links.reconnected(host):
            continue
        # Not the probe yet: a fact that fails drops the host, and this one may still be shutting down.
        ok, said = run_script(host, BOOT_ID(**REFUSED), 20)
        now, _, refused = said.strip().partition("\n")
        if ok and now == boot_id and refused:
            run.report.fail(host.name, f"the host refused to reboot: {refused}",
                            "end what it names, or reboot the host by hand; run the same command again")
            return False
        if ok and now != boot_id:
            run.memory.forget(host)
            with suppress(ProbeFailed):  # once more, then
                return _sound(host)
    run.report.fail(host.name, f"did not come back within {seconds} s of its reboot",
                 "look at its console; run the same command again when it is up")
    return False


def _sound(host: Host) -> bool:
    run = Run.of(host)
    plan = run.memory.plan(host)
    driver = run.memory.context(host).state.driver
    if plan.refusals or plan.step("driver").action.changes or plan.step("reboot").action.changes or driver.error:
        said = driver.excerpt or driver.error or plan.step("driver").why
        run.report.fail(host.name, f"after the reboot the driver still isn't right: {said}",
                     "see `dmesg | grep -i nvrm` on the host", said=[said], alone=True)
        return False
    return True


APPLIER = Applier("Reboot | Reboot into the driver", commands, root=True)
