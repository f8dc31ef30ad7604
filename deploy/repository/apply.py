"""NVIDIA's apt repository: key, source and pins written. NVIDIA's keys are in our data; a user's own is fetched by the
host, and what apt gets of it is written anew here (qwen_rig/openpgp.py)."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator

from qwen_rig import openpgp
from qwen_rig.catalog.sources import AptKey, load_sources
from qwen_rig.deploy.driver.plan import from_own
from qwen_rig.managed import KEYRING, PREFERENCES, REPOSITORY, preferences_text, repository_text
from qwen_rig.plan import Context, Step
from qwen_rig.plan.place import repository_at, repository_key
from qwen_rig.program import load
from qwen_rig.run import network
from qwen_rig.run.adapter import FunctionCommand, Host, State
from qwen_rig.run.converge import Applier, run_script
from qwen_rig.run.job import attend
from qwen_rig.run.job_protocol import Job
from qwen_rig.run.run import Run

LOCK = load("shell/apt.sh", "deploy/repository/lock.sh")
FETCH = load("host/jobs.sh", "shell/network.sh", "deploy/repository/fetch.sh")
TRUST = load("shell/files.sh", "shell/network.sh", "shell/apt.sh", "deploy/repository/trust.sh")


def commands(run: Run, ctx: Context, step: Step) -> Iterator[FunctionCommand]:
    """One function, as a key of the user's own is read on the controller."""
    yield FunctionCommand(_trust, (ctx, step), {})


def _trust(state: State, host: Host, ctx: Context, step: Step) -> bool:
    """Write key, source and pins, as far as apt agrees; on failure nothing stays."""
    this = Run.of(host)
    key = repository_key(ctx)
    assert key is not None  # a host of which no key is known was refused (plan/place.py, repository_known)
    sudo = ctx.machine.sudo != "root"
    url = repository_at(ctx)
    # A lock is waited for here, before anything is written: what comes after needs it at once.
    lock = LOCK(lock_s=str(ctx.knobs.timeout_apt_lock))
    if not attend(host, Job("apt-lock", "Waiting for apt", lock, ctx.knobs.timeout_apt_lock + 60), sudo=sudo).ok:
        return False
    try:
        trusted = load_sources().nvidia_apt.keyring(key.fingerprint) or _own(host, ctx, key, url, sudo)
    except (ValueError, binascii.Error) as error:
        this.report.fail(host.name, f"the key at {url}{key.file} isn't trusted: {error}",
                         "check source_nvidia_apt and source_nvidia_apt_key: the file must hold that key alone")
        return False
    if trusted is None:
        return False
    driver = this.memory.plan(host).step("driver").action.changes and not from_own(ctx)
    trust = TRUST(**this.network.apt(ctx), keyring=KEYRING, key=trusted, repository=REPOSITORY,
                  source=repository_text(url), preferences=PREFERENCES, pins=preferences_text(url, driver))
    return attend(host, Job(step.component, step.title, trust, ctx.knobs.timeout_apt), sudo=sudo).ok


def _own(host: Host, ctx: Context, key: AptKey, url: str, sudo: bool) -> str | None:
    """A keyring of the user's own key alone, as the bundle or the repository has it; None where it didn't come, which
    is told then. Raises ValueError where it is anything else."""
    if ctx.knobs.bundle and (kept := network.keyring(ctx, key.fingerprint)) is not None:
        return openpgp.keyring(kept, key.fingerprint)
    fetch = FETCH(**Run.of(host).network.way_out(ctx), url=url + key.file, seconds=str(ctx.knobs.timeout_fetch))
    ok, said = run_script(host, fetch, ctx.knobs.timeout_fetch + 60, sudo=sudo)
    return openpgp.keyring(base64.b64decode(said).decode(), key.fingerprint) if ok else None


APPLIER = Applier("NVIDIA repository | Configure NVIDIA's apt repository", commands, root=True)
