"""NVIDIA's apt repository: its key fetched and compared, then key, source and pins written."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator

from qwen_rig import openpgp
from qwen_rig.catalog.rules import load_rules
from qwen_rig.managed import KEYRING, PREFERENCES, REPOSITORY, preferences_text, repository_folder, repository_text
from qwen_rig.plan import Context, Step
from qwen_rig.plan.place import repository_at
from qwen_rig.program import load
from qwen_rig.run import network
from qwen_rig.run.adapter import FunctionCommand, Host, State
from qwen_rig.run.converge import Applier, run_script
from qwen_rig.run.job import attend
from qwen_rig.run.job_protocol import Job
from qwen_rig.run.run import Run

LOCK = load("shell/apt.sh", "deploy/repository/lock.sh")
FETCH = load("shell/network.sh", "deploy/repository/fetch.sh")
TRUST = load("shell/files.sh", "shell/network.sh", "shell/apt.sh", "deploy/repository/trust.sh")


def commands(run: Run, ctx: Context, step: Step) -> Iterator[FunctionCommand]:
    """One function, as the key is compared on the controller."""
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
            fetch = FETCH(**this.network.way_out(ctx), url=url + key.key, seconds=str(ctx.knobs.timeout_fetch))
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


APPLIER = Applier("NVIDIA repository | Configure NVIDIA's apt repository", commands, root=True)
