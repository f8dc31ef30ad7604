"""The driver's part of the plan: the repository, the driver, what guards it, and the reboot. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from packaging.version import Version

from qwen_rig.plan.apt import disk
from qwen_rig.plan.context import Context, version
from qwen_rig.plan.model import Action, Payload, Refusal, Step
from qwen_rig.plan.planner import OURS, Fact, Parts, Planner, Rule, fact, gpus, loaded

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


def refusals(ctx: Context, steps: Sequence[Step]) -> list[Refusal]:
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
        elif driver_action(ctx).changes:
            found += _in_the_way(ctx)
        elif line := rejected(ctx):
            found.append(Refusal(f"Secure Boot is on, and the kernel refuses the driver's module: {line}",
                                 "switch it off in the firmware, or enrol the key that signed the module (mokutil)"))
    return found


def busy(ctx: Context, due: str) -> list[Refusal]:
    """Whose work on the GPU would be lost by what is due."""
    if not ctx.machine.gpu_users or ctx.knobs.allow_busy_gpu:
        return []
    users = ", ".join(map(str, ctx.machine.gpu_users))
    return [Refusal(f"the GPU is in use by {users}, and {due}", "wait or stop it, or set allow_busy_gpu=True")]


def rejected(ctx: Context) -> str | None:
    """The kernel's own word that it didn't load a module for its signature; no reboot would change that."""
    if ctx.machine.secure_boot != "enabled" or ctx.state.driver.loaded_version:
        return None
    return next((line for line in ctx.state.kernel_log.lines if "rejected" in line), None)


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
    return found + busy(ctx, "the driver must be replaced")


def _too_old(ctx: Context) -> list[Refusal]:
    """Why the branch that would be installed can't serve: the knob's, or the last one for an old card beside."""
    floor, asked = Version(ctx.driver_floor).major, ctx.knobs.nvidia_driver_branch
    if branch(ctx) >= floor:
        return []
    if asked < floor:
        return [Refusal(f"nvidia_driver_branch={asked} can't serve {ctx.stack.cuda_tag} on {_archs(ctx)}, which needs "
                        f"≥ {ctx.driver_floor}", f"set nvidia_driver_branch={floor} or later")]
    return [Refusal(f"no driver serves all of {', '.join(gpu.name for gpu in ctx.gpus)}: branch {branch(ctx)} is the "
                    f"last for one of them, and {ctx.driver_floor} is the least for another", "take one out")]


def _flavour(ctx: Context) -> str | None:
    return next((f for gpu in ctx.gpus if (f := ctx.rules.flavour(gpu.compute_capability))), None)


def _installed(ctx: Context) -> tuple[str | None, str | None]:
    """The driver on disk, version and flavour; the loaded one's where nothing on disk tells."""
    driver = ctx.state.driver
    return (driver.installed_version or driver.loaded_version,
            driver.installed_flavour or driver.flavour)


def driver_action(ctx: Context) -> Action:
    """Whether the driver on disk must come or go; that it isn't loaded yet is the reboot's business."""
    installed, flavour = _installed(ctx)
    found = version(installed)
    if found is None:
        return Action.ADD
    wrong_flavour = _flavour(ctx) is not None and flavour is not None and flavour != _flavour(ctx)
    return Action.CHANGE if found < Version(ctx.driver_floor) or wrong_flavour else Action.NONE


def _wanted(ctx: Context) -> str:
    return f"{branch(ctx)} {_flavour(ctx) or 'open'}"


def branch(ctx: Context) -> int:
    """The wanted branch, or the last that still knows the oldest card here."""
    ends = [end for gpu in ctx.gpus if (end := ctx.rules.last_branch(gpu.compute_capability))]
    return min([ctx.knobs.nvidia_driver_branch, *ends])


def _archs(ctx: Context) -> str:
    known = {gpu.compute_capability for gpu in ctx.gpus if gpu.compute_capability}
    return ", ".join(f"sm_{v.major}{v.minor}" for v in sorted(known)) or "this GPU"


def step(ctx: Context, before: Sequence[Step]) -> Step:
    """Adopted where it serves every card and the stack; in a container and in WSL it is somebody else's."""
    if ctx.foreign_kernel:
        running = ctx.state.driver.loaded_version or "unknown"
        return Step("NVIDIA driver", running, f"≥ {ctx.driver_floor}", Action.NA,
                    f"host's driver {running} serves {ctx.stack.cuda_tag}")
    action = driver_action(ctx)
    installed, flavour = _installed(ctx)
    now = f"{installed} {flavour or ''}".strip() if installed else "none"
    demand = f"{_archs(ctx)} needs ≥ {ctx.driver_floor}"
    if _flavour(ctx):
        demand += f", {_flavour(ctx)} modules"
    if action is Action.NONE:
        return Step("NVIDIA driver", now, now, action, f"adopted: {demand}")
    packages = ctx.rules.driver_set(ctx.machine.os.id, ctx.machine.os.version_id)
    if packages is None:  # refused
        return Step("NVIDIA driver", now, _wanted(ctx), action, demand, bytes=None, fetches=("apt",))
    groups = packages.packages(_flavour(ctx) or "open", branch(ctx))
    return Step("NVIDIA driver", now, _wanted(ctx), action, demand, bytes=packages.bytes,
                payload=DriverPayload(tuple(map(tuple, groups)), not ctx.machine.headers), fetches=("apt",),
                disk=disk(ctx, "driver", replaces=action is Action.CHANGE))


def _kernel(ctx: Context) -> Fact:
    evidence = "; ".join(ctx.machine.kind_evidence)
    return fact("kind of host", ctx.machine.kind + (f" ({evidence})" if evidence else ""), "host.Host")


def _card_rules(ctx: Context) -> list[Rule]:
    source, said = ctx.rules.source, []
    for cc in sorted({gpu.compute_capability for gpu in ctx.gpus if gpu.compute_capability}):
        arch = f"sm_{cc.major}{cc.minor}"
        said.append(Rule(f"{arch} with CUDA {ctx.stack.cuda}: driver ≥ {ctx.rules.least_driver(ctx.stack.cuda, cc)}",
                         source("cuda")))
        if flavour := ctx.rules.flavour(cc):
            said.append(Rule(f"{arch} runs on {flavour} kernel modules only", source("modules")))
        if last := ctx.rules.last_branch(cc):
            said.append(Rule(f"{arch}: branch {last} is the last that knows it", source("legacy")))
    return said


def explain(ctx: Context) -> Parts:
    """The cards, the driver, the system, and what the cards demand."""
    machine = ctx.machine
    facts = [*gpus(ctx), *loaded(ctx), _kernel(ctx), fact("system", machine.os.pretty, "host.Host"),
             fact("root", machine.sudo, "host.Host"), fact("Secure Boot", machine.secure_boot, "host.Host"),
             fact("GPU in use by", ", ".join(f"{u.name or 'unknown'} (pid {u.pid})" for u in machine.gpu_users),
                   "host.Host")]
    rules = _card_rules(ctx)
    if ctx.foreign_kernel:
        rules.append(Rule(f"in a {machine.kind} the driver belongs to whoever owns the kernel", OURS))
    elif packages := ctx.rules.driver_set(machine.os.id, machine.os.version_id):
        rules.append(Rule(f"driver packages are known for {packages.folder}", ctx.rules.source("drivers")))
    return facts, rules


PLANNER = Planner(step, explain, knobs=("nvidia_driver", "nvidia_driver_branch", "allow_busy_gpu"), refusals=refusals)
