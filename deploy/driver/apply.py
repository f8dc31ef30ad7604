"""The driver's steps: NVIDIA's repository, the driver, what guards it, the reboot. apt only; root or sudo."""

from __future__ import annotations

import base64
import binascii
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import chain

from qwen_rig.catalog.rules import load_rules
from qwen_rig.deploy.driver import openpgp
from qwen_rig.deploy.driver.plan import DriverPayload, repository_at
from qwen_rig.managed import (
    GUARD,
    KEYRING,
    PREFERENCES,
    REPOSITORY,
    preferences_text,
    repository_folder,
    repository_text,
)
from qwen_rig.plan import Context, Step
from qwen_rig.program import lines, load
from qwen_rig.run import network
from qwen_rig.run.adapter import FunctionCommand, Host, State, StringCommand, deploy
from qwen_rig.run.converge import converge, run_script, script
from qwen_rig.run.job import JobCommand, attend, job
from qwen_rig.run.job_protocol import Job
from qwen_rig.run.memory import ProbeFailed
from qwen_rig.run.run import Run

APT = ("shell/files.sh", "shell/network.sh", "shell/apt.sh")
LOCK = load("shell/apt.sh", "deploy/repository/lock.sh")
FETCH = load("shell/network.sh", "deploy/repository/fetch.sh")
TRUST, INSTALL = load(*APT, "deploy/repository/trust.sh"), load(*APT, "deploy/driver/install.sh")
GUARDS = load("shell/files.sh", "deploy/guard/guard.sh")
REBOOT, BOOT_ID = load("deploy/reboot/reboot.sh"), load("deploy/reboot/boot_id.sh")


@deploy("NVIDIA repository")
def nvidia_repository() -> None:
    """NVIDIA's apt repository with its key, where the driver or the toolkit must come from it."""
    converge("repository", "Configure NVIDIA's apt repository", _repository, root=True)


@deploy("NVIDIA driver")
def nvidia_driver() -> None:
    """The driver of the wanted branch and flavour, with the kernel's headers."""
    converge("driver", "Install the driver", _driver, root=True)


@deploy("Driver guard")
def driver_guard() -> None:
    """nouveau kept out, NVIDIA's packages kept from unattended upgrades."""
    converge("guard", "Keep nouveau out and upgrades deliberate", _guard, root=True)


@deploy("Reboot")
def reboot() -> None:
    """A reboot where the loaded driver isn't the installed one; then everything is probed and planned again."""
    converge("reboot", "Reboot into the driver", _reboot, root=True)


def _repository(run: Run, ctx: Context, step: Step) -> Iterator[StringCommand | FunctionCommand]:
    yield FunctionCommand(_trust, (ctx, step), {})


def _trust(state: State, host: Host, ctx: Context, step: Step) -> bool:
    """Fetch the key, compare its fingerprint here, then write key and source; on failure nothing stays."""
    this = Run.of(host)
    source = load_rules().nvidia_apt
    folder = repository_folder(ctx.machine.os)
    key = source.key_for(folder)
    wanted = network.repository_key(ctx)
    sudo = ctx.machine.sudo != "root"
    url = repository_at(ctx)
    # A lock is waited for here, before anything is written: what comes after needs it at once.
    lock = LOCK(lock_s=str(ctx.knobs.timeout_apt_lock))
    if not attend(host, Job("apt-lock", "Waiting for apt", lock, ctx.knobs.timeout_apt_lock + 60), sudo=sudo).ok:
        return False
    armored = network.keyring(ctx, wanted) if ctx.knobs.bundle else None
    try:
        if armored is None:
            fetch = FETCH(proxy=network.proxy(ctx), url=url + key.key, seconds=str(ctx.knobs.timeout_fetch))
            ok, said = run_script(host, fetch, ctx.knobs.timeout_fetch + 60, sudo=sudo)
            if not ok:
                return False
            armored = base64.b64decode(said).decode()
        found = openpgp.fingerprints(armored)
    except (ValueError, binascii.Error, UnicodeDecodeError) as error:
        found = [f"unreadable: {error}"]
    if found != [wanted]:
        this.report.fail(host.name, f"the key at {url}{key.key} is {', '.join(found) or 'empty'}, expected {wanted}",
                     "check source_nvidia_apt; if NVIDIA has a new key, set source_nvidia_apt_key to its fingerprint")
        return False
    assert armored is not None  # it has a fingerprint
    driver = this.memory.plan(host).step("driver").action.changes
    trust = TRUST(**this.network.apt(ctx), keyring=KEYRING, key=armored, repository=REPOSITORY,
                  source=repository_text(url), preferences=PREFERENCES, pins=preferences_text(url, driver))
    return attend(host, Job(step.component, step.title, trust, ctx.knobs.timeout_apt), sudo=sudo).ok


def _driver(run: Run, ctx: Context, step: Step) -> Iterator[JobCommand]:
    wanted = step.need(DriverPayload)
    groups = lines(" ".join(group) for group in wanted.packages)
    pins = preferences_text(repository_at(ctx), driver=True)
    yield job(step, INSTALL(**run.network.apt(ctx), preferences=PREFERENCES, pins=pins, groups=groups,
                            headers="yes" if wanted.headers else ""), ctx.knobs.timeout_apt)


def _guard(run: Run, ctx: Context, step: Step) -> Iterator[JobCommand]:
    *first, (sign, text) = GUARD.items()
    yield job(step, GUARDS(*chain.from_iterable(first), sign=sign, sign_text=text), ctx.knobs.timeout_apt)


def _reboot(run: Run, ctx: Context, step: Step) -> Iterator[StringCommand | FunctionCommand]:
    yield script(REBOOT(), 30)
    yield FunctionCommand(_come_back, (ctx.machine.boot_id, ctx.knobs.timeout_reboot), {})


def _come_back(state: State, host: Host, boot_id: str | None, seconds: int) -> bool:
    """Wait for another boot id, probe again, and say what the new plan thinks of the driver."""
    run, end = Run.of(host), time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(2)
        if not run.links.reconnected(host):
            continue
        # Not the probe yet: a fact that fails drops the host, and this one may still be on its way down.
        ok, now = run_script(host, BOOT_ID(), 20)
        if ok and now.strip() != boot_id:
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
