"""The driver's steps: NVIDIA's repository, the driver, what guards it, the reboot. apt only; root or sudo."""

from __future__ import annotations

import base64
import binascii
import shlex
import time
from collections.abc import Iterator
from contextlib import suppress

from qwen_rig.catalog.rules import load_rules
from qwen_rig.deploy.driver import openpgp
from qwen_rig.deploy.driver.plan import repository_at
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
from qwen_rig.run import network
from qwen_rig.run.adapter import FunctionCommand, Host, State, StringCommand, deploy
from qwen_rig.run.apt import install, unlocked, update
from qwen_rig.run.converge import converge, run_script, script
from qwen_rig.run.job import JobCommand, attend, job
from qwen_rig.run.job_protocol import Job
from qwen_rig.run.memory import ProbeFailed
from qwen_rig.run.run import Run


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
    folder = repository_folder(ctx.machine["os"])
    key = source.key_for(folder)
    wanted = network.repository_key(ctx)
    sudo = ctx.machine["sudo"] != "root"
    url = repository_at(ctx)
    # A lock is waited for here, before anything is written: what comes after needs it at once.
    if not attend(host, Job("apt-lock", "Waiting for apt", unlocked(ctx.knobs), ctx.knobs.timeout_apt_lock + 60),
                  sudo=sudo).ok:
        return False
    armored = network.keyring(ctx, wanted) if ctx.knobs.bundle else None
    try:
        if armored is None:
            ok, said = run_script(host, network.proxies(ctx) + _fetch(url + key.key, ctx.knobs.timeout_fetch),
                           ctx.knobs.timeout_fetch + 60, sudo=sudo)
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
    files = {KEYRING: armored, REPOSITORY: repository_text(url), PREFERENCES: preferences_text(url, driver)}
    text = "".join(_write(path, content) for path, content in files.items())
    undo = f"rm -f {' '.join(files)}"
    text = f"trap '[ $? -eq 0 ] || {undo}' EXIT\n{text}{this.network.apt(ctx)}{update(ctx.knobs)}"
    return attend(host, Job(step.component, step.title, text, ctx.knobs.timeout_apt), sudo=sudo).ok


def _fetch(url: str, seconds: int) -> str:
    """Print a file in base64. apt's own downloader is on every Debian and Ubuntu, and obeys apt's proxy.

    Its own time limit holds per try and per read; `timeout` ends a server that takes the request and says nothing.
    """
    late = f"qwen-rig: {url} did not come within {seconds} s: check source_nvidia_apt, and the way there"
    return f"""dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT
code=0
helper=/usr/lib/apt/apt-helper
timeout -k 5 {seconds} $helper -o Acquire::Retries=1 download-file {shlex.quote(url)} "$dir/file" >&2 || code=$?
[ $code -ne 124 ] || echo {shlex.quote(late)} >&2
[ $code -eq 0 ] || exit 1
base64 "$dir/file"
"""


def _write(path: str, content: str) -> str:
    """Write a file whole or not at all: a full disk leaves what was there."""
    quoted = shlex.quote(path)
    return (f"mkdir -p \"$(dirname {quoted})\"\nprintf %s {shlex.quote(content)} > {quoted}.new\n"
            f"chmod 644 {quoted}.new\nmv {quoted}.new {quoted}\n")


def _driver(run: Run, ctx: Context, step: Step) -> Iterator[JobCommand]:
    groups: list[list[str]] = [list(group) for group in step.data["packages"]]
    headers = ['"linux-headers-$(uname -r)"'] if step.data["headers"] else []
    # The repository may have come for the toolkit alone, when another driver was right.
    ours = _write(PREFERENCES, preferences_text(repository_at(ctx), driver=True))
    yield job(step, ours + run.network.apt(ctx) + update(ctx.knobs) + install(ctx.knobs, groups, extra=headers),
              ctx.knobs.timeout_apt)


def _guard(run: Run, ctx: Context, step: Step) -> Iterator[JobCommand]:
    # The last file is the sign that all is done: without it, a run that broke off here is one to be repeated.
    *first, last = GUARD.items()
    text = "".join(_write(path, content) for path, content in first)
    initramfs = "if command -v update-initramfs >/dev/null; then update-initramfs -u; fi\n"
    yield job(step, f"rm -f {shlex.quote(last[0])}\n{text}{initramfs}{_write(*last)}", ctx.knobs.timeout_apt)


def _reboot(run: Run, ctx: Context, step: Step) -> Iterator[StringCommand | FunctionCommand]:
    # Detached, so that the session ends before the host does.
    yield script("(sleep 1; reboot) </dev/null >/dev/null 2>&1 &", 30)
    yield FunctionCommand(_come_back, (ctx.machine["boot_id"], ctx.knobs.timeout_reboot), {})


def _come_back(state: State, host: Host, boot_id: str | None, seconds: int) -> bool:
    """Wait for another boot id, probe again, and say what the new plan thinks of the driver."""
    run, end = Run.of(host), time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(2)
        if not run.links.reconnected(host):
            continue
        # Not the probe yet: a fact that fails drops the host, and this one may still be on its way down.
        ok, now = run_script(host, "cat /proc/sys/kernel/random/boot_id", 20)
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
    driver = run.memory.context(host).state["driver"]
    if plan.refusals or plan.step("driver").action.changes or plan.step("reboot").action.changes or driver["error"]:
        said = driver["excerpt"] or driver["error"] or plan.step("driver").why
        run.report.fail(host.name, f"after the reboot the driver still isn't right: {said}",
                     "see `dmesg | grep -i nvrm` on the host", said=[said], alone=True)
        return False
    return True
