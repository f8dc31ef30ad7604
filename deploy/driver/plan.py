"""The driver's part of the plan: the repository, the driver, what guards it, and the reboot. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from packaging.version import Version

from qwen_rig.managed import (
    GUARD,
    PREFERENCES,
    REPOSITORY,
    guard_digests,
    preferences_text,
    repository_files,
    repository_text,
    repository_url,
)
from qwen_rig.plan.context import Context, version
from qwen_rig.plan.files import managed
from qwen_rig.plan.model import Action, Payload, Refusal, Step

# Errors that no package cures: somebody has to look at the machine (KB: Xid 79, driver handle errors).
HARDWARE = {
    "gpu_lost": "a GPU has fallen off the bus",
    "gpu_requires_reset": "a GPU requires a reset",
}


@dataclass(frozen=True)
class DriverPayload(Payload):
    """`packages`: groups that apt installs one after the other; `headers`: the running kernel's are lacking."""

    packages: tuple[tuple[str, ...], ...]
    headers: bool


def refusals(ctx: Context) -> list[Refusal]:
    """What forbids touching this host on its driver's account."""
    driver, found = ctx.state.driver, []
    if ctx.foreign_kernel:
        found += _foreign(ctx)
    else:
        if driver.error in HARDWARE:
            found.append(Refusal(f"{HARDWARE[driver.error]}: {driver.excerpt or driver.error}",
                                 "look at power, slot and temperature; software can't mend it"))
        flavours = {needed for gpu in ctx.gpus if (needed := ctx.rules.flavour(gpu.compute_capability))}
        if len(flavours) > 1:
            names = ", ".join(gpu.name for gpu in ctx.gpus)
            found.append(Refusal(f"no driver serves all of {names}: Blackwell needs open modules, cards before "
                                 "Turing can't use them", "take one of the cards out"))
        elif _driver_action(ctx).changes:
            found += _in_the_way(ctx)
        elif line := _rejected(ctx):
            found.append(Refusal(f"Secure Boot is on, and the kernel refuses the driver's module: {line}",
                                 "switch it off in the firmware, or enrol the key that signed the module (mokutil)"))
        elif _reboot(ctx, Action.NONE).action is Action.REBOOT:
            found += _busy(ctx, "the host must be rebooted")
    return found


def _busy(ctx: Context, due: str) -> list[Refusal]:
    """Whose work on the GPU would be lost by what is due."""
    if not ctx.machine.gpu_users or ctx.knobs.allow_busy_gpu:
        return []
    users = ", ".join(map(str, ctx.machine.gpu_users))
    return [Refusal(f"the GPU is in use by {users}, and {due}", "wait or stop it, or set allow_busy_gpu=True")]


def _rejected(ctx: Context) -> str | None:
    """The kernel's own word that it didn't load a module for its signature; no reboot would change that."""
    if ctx.machine.secure_boot != "enabled" or ctx.state.driver.loaded_version:
        return None
    return next((line for line in ctx.state.kernel_log.lines if "rejected" in line), None)


def unanswered(ctx: Context) -> str | None:
    """What nvidia-smi complains of although the driver and its loading are right; None where it answers."""
    driver = ctx.state.driver
    if ctx.foreign_kernel or driver.error is None or any(step.action.changes for step in steps(ctx)[1::2]):
        return None
    return driver.excerpt or driver.error


def _foreign(ctx: Context) -> list[Refusal]:
    driver = ctx.state.driver
    if ctx.driver_serves:
        return []
    wsl, floor = ctx.machine.kind == "wsl", Version(ctx.driver_floor).major
    owner = "Windows" if wsl else "the host"
    loaded = version(driver.loaded_version)
    if loaded and loaded < Version(ctx.driver_floor):  # whatever else it complains of comes from that
        return [Refusal(f"host's driver {driver.loaded_version} can't serve {ctx.stack.cuda_tag} on "
                        f"{_archs(ctx)}: it takes ≥ {ctx.driver_floor}, and in a {ctx.machine.kind} the driver "
                        f"belongs to {owner}", f"update the NVIDIA driver in Windows to ≥ {floor}" if wsl
                        else f"rent a host with driver ≥ {floor}")]
    return [Refusal(f"the driver of this {ctx.machine.kind} doesn't answer ({driver.error or 'unknown'})"
                    + (f": {driver.excerpt}" if driver.excerpt else ""),
                    f"it belongs to {owner}: " + ("update it there, then run `wsl --update` and `wsl --shutdown`" if wsl
                    else f"start the {ctx.machine.kind} with its GPU, or rent another"))]


def _in_the_way(ctx: Context) -> list[Refusal]:
    """Why a driver that should be installed can't be, now."""
    machine, found = ctx.machine, []
    if machine.kind == "unknown":
        found.append(Refusal("it can't be told whether this is a container, whose driver would be its host's",
                             "see `fact facts.host.Host`; install the driver by hand, and it will be adopted"))
    if ctx.knobs.nvidia_driver == "never":
        found.append(Refusal(f"the driver must be {_wanted(ctx)} and nvidia_driver=never forbids it",
                             "install it yourself, or set nvidia_driver=auto"))
        return found
    found += _too_old(ctx)
    if machine.sudo == "locked":
        user = machine.user.name
        found.append(Refusal(f"the driver must be {_wanted(ctx)}, and sudo asks {user} for a password",
                             "name the variable that holds it: sudo_password_env in lab.yml"))
    elif not ctx.root:
        found.append(Refusal(f"the driver must be {_wanted(ctx)}, and {machine.user.name} has neither root "
                             "nor sudo", "give the user sudo, or have an administrator install the driver"))
    if ctx.rules.driver_set(machine.os.id, machine.os.version_id) is None:
        found.append(Refusal(f"no driver packages are known for {machine.os.pretty} ({machine.arch})",
                             f"install driver ≥ {ctx.driver_floor} by hand; it will then be adopted"))
    if machine.secure_boot == "enabled":
        found.append(Refusal("Secure Boot is on, and the driver's DKMS modules are not signed",
                             "switch it off in the firmware, or install modules signed by your distribution"))
    return found + _busy(ctx, "the driver must be replaced")


def _too_old(ctx: Context) -> list[Refusal]:
    """Why the branch that would be installed can't serve: the knob's, or the last one for an old card beside."""
    floor, asked = Version(ctx.driver_floor).major, ctx.knobs.nvidia_driver_branch
    if _branch(ctx) >= floor:
        return []
    if asked < floor:
        return [Refusal(f"nvidia_driver_branch={asked} can't serve {ctx.stack.cuda_tag} on {_archs(ctx)}, which needs "
                        f"≥ {ctx.driver_floor}", f"set nvidia_driver_branch={floor} or later")]
    return [Refusal(f"no driver serves all of {', '.join(gpu.name for gpu in ctx.gpus)}: branch {_branch(ctx)} is the "
                    f"last for one of them, and {ctx.driver_floor} is the least for another", "take one out")]


def steps(ctx: Context) -> list[Step]:
    """Repository, driver, guard, reboot; all `n/a` where the kernel is somebody else's."""
    driver = ctx.state.driver
    if ctx.foreign_kernel:
        why = f"host's driver {driver.loaded_version or 'unknown'} serves {ctx.stack.cuda_tag}"
        foreign = f"in a {ctx.machine.kind} the kernel is somebody else's"
        return [Step("repository", "NVIDIA repository", "-", "-", Action.NA, foreign),
                Step("driver", "NVIDIA driver", driver.loaded_version or "unknown", f"≥ {ctx.driver_floor}",
                     Action.NA, why),
                Step("guard", "Driver guard", "-", "-", Action.NA, foreign),
                Step("reboot", "Reboot", "-", "-", Action.NA, foreign)]
    action = _driver_action(ctx)
    return [_repository(ctx, action), _driver(ctx, action), _guard(ctx, action), _reboot(ctx, action)]


def _flavour(ctx: Context) -> str | None:
    return next((f for gpu in ctx.gpus if (f := ctx.rules.flavour(gpu.compute_capability))), None)


def _installed(ctx: Context) -> tuple[str | None, str | None]:
    """The driver on disk, version and flavour; the loaded one's where nothing on disk tells."""
    driver = ctx.state.driver
    return (driver.installed_version or driver.loaded_version,
            driver.installed_flavour or driver.flavour)


def _driver_action(ctx: Context) -> Action:
    """Whether the driver on disk must come or go; that it isn't loaded yet is the reboot's business."""
    installed, flavour = _installed(ctx)
    found = version(installed)
    if found is None:
        return Action.ADD
    wrong_flavour = _flavour(ctx) is not None and flavour is not None and flavour != _flavour(ctx)
    return Action.CHANGE if found < Version(ctx.driver_floor) or wrong_flavour else Action.NONE


def _wanted(ctx: Context) -> str:
    return f"{_branch(ctx)} {_flavour(ctx) or 'open'}"


def _branch(ctx: Context) -> int:
    """The wanted branch, or the last that still knows the oldest card here."""
    ends = [end for gpu in ctx.gpus if (end := ctx.rules.last_branch(gpu.compute_capability))]
    return min([ctx.knobs.nvidia_driver_branch, *ends])


def _archs(ctx: Context) -> str:
    known = {gpu.compute_capability for gpu in ctx.gpus if gpu.compute_capability}
    return ", ".join(f"sm_{v.major}{v.minor}" for v in sorted(known)) or "this GPU"


def _driver(ctx: Context, action: Action) -> Step:
    installed, flavour = _installed(ctx)
    now = f"{installed} {flavour or ''}".strip() if installed else "none"
    demand = f"{_archs(ctx)} needs ≥ {ctx.driver_floor}"
    if _flavour(ctx):
        demand += f", {_flavour(ctx)} modules"
    if action is Action.NONE:
        return Step("driver", "NVIDIA driver", now, now, action, f"adopted: {demand}")
    packages = ctx.rules.driver_set(ctx.machine.os.id, ctx.machine.os.version_id)
    if packages is None:  # refused
        return Step("driver", "NVIDIA driver", now, _wanted(ctx), action, demand, bytes=None)
    groups = packages.packages(_flavour(ctx) or "open", _branch(ctx))
    return Step("driver", "NVIDIA driver", now, _wanted(ctx), action, demand, bytes=packages.bytes,
                payload=DriverPayload(tuple(map(tuple, groups)), not ctx.machine.headers))


def repository_at(ctx: Context) -> str:
    """Where NVIDIA's packages for this host's system are."""
    return repository_url(ctx.machine.os, ctx.knobs.source_nvidia_apt or ctx.rules.nvidia_apt.url)


def _repository(ctx: Context, driver: Action) -> Step:
    """NVIDIA's apt repository: wanted where the driver or the toolkit must come from it."""
    from qwen_rig.deploy.toolkit.plan import toolkit_action  # the toolkit asks for the same repository

    files = ctx.state.files
    configured = [path for path in repository_files(ctx.machine.os) if files.get(path)]
    if not (driver.changes or toolkit_action(ctx).changes):
        return Step("repository", "NVIDIA repository", "configured" if configured else "none", "-", Action.NONE,
                    "nothing has to come from it")
    if configured:
        return Step("repository", "NVIDIA repository", configured[0], configured[0], Action.NONE, "configured")
    url = repository_at(ctx)
    return Step("repository", "NVIDIA repository", "none", "signed, one origin", Action.ADD,
                "the driver or the toolkit comes from it", bytes=None, files=managed(ctx, {
                    REPOSITORY: repository_text(url), PREFERENCES: preferences_text(url, driver.changes)}))


def _guard(ctx: Context, driver: Action) -> Step:
    """What keeps the driver from harm: nouveau stays out, unattended upgrades leave NVIDIA's packages alone."""
    title, wanted = "Driver guard", "no nouveau, no unattended upgrade"
    if not (driver.changes or any("nvidia" in name for name in ctx.state.dpkg)):
        return Step("guard", title, "-", "-", Action.NA, "the driver isn't apt's")
    wrong = [path for path, digest in guard_digests().items() if ctx.state.files.get(path) != digest]
    if not wrong:
        return Step("guard", title, "set", "set", Action.NONE, wanted)
    if not ctx.root:
        return Step("guard", title, "not set", "-", Action.NA, "needs root")
    absent = all(ctx.state.files.get(path) is None for path in wrong)
    return Step("guard", title, "not set" if absent else "altered", wanted,
                Action.ADD if absent else Action.CHANGE,
                "an unattended upgrade is the commonest cause of a driver/library mismatch", files=managed(ctx, GUARD))


def _reboot(ctx: Context, driver_action: Action) -> Step:
    driver = ctx.state.driver
    loaded, installed = driver.loaded_version, driver.installed_version
    now = f"loaded {loaded or 'none'}"
    if driver_action.changes:
        why, needed, wanted = "the new driver's modules must be loaded", True, f"loaded {_branch(ctx)}"
    elif driver.nouveau_loaded and installed:
        why, needed, wanted = "nouveau holds the GPU", True, f"loaded {installed}"
    elif installed and installed != loaded:
        why, needed, wanted = f"installed {installed}, loaded {loaded or 'none'}", True, f"loaded {installed}"
    else:
        why, needed, wanted = "loaded and installed driver agree", False, now
    if not needed:
        return Step("reboot", "Reboot", now, wanted, Action.NONE, why)
    if ctx.knobs.reboot == "never" or not ctx.root:
        return Step("reboot", "Reboot", now, wanted, Action.NA,
                    f"needed ({why}), but " + ("reboot=never" if ctx.root else "it takes root"))
    return Step("reboot", "Reboot", now, wanted, Action.REBOOT, why)
