"""The driver's part of the plan: the repository, the driver, what guards it, and the reboot. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

from packaging.version import Version

from qwen_rig.catalog.driver_set import BRANCH, DriverSet
from qwen_rig.frozen import frozen
from qwen_rig.plan.apt import disk
from qwen_rig.plan.context import Context, Gpu, version
from qwen_rig.plan.crossed import ended
from qwen_rig.plan.model import Action, Payload, Refusal, Step
from qwen_rig.plan.place import repository_known
from qwen_rig.plan.planner import OURS, Fact, Parts, Planner, Rule, fact, gpus, loaded

# Errors that no package cures: somebody has to look at the machine (Xid 79 and errors of the
# device handle: NVIDIA/open-gpu-kernel-modules#888, #900, #1151).
HARDWARE = {
    "gpu_lost": "a GPU has fallen off the bus",
    "gpu_requires_reset": "a GPU requires a reset",
}
# How a module that is too new says so: "supported through the NVIDIA 580.xx Legacy drivers".
LEGACY = re.compile(r"supported through the NVIDIA (\d{3})\.xx Legacy drivers")
LATEST = 999  # stands for no last branch


@frozen
class DriverPayload(Payload):
    """`packages`: groups that apt installs one after the other; `templates`: the same with {branch} in their names, and
    `branches`: the wanted one, and the least and the last that will do, where the repository lacks it; `headers`: the
    running kernel's are lacking; `own`: they are the distribution's own, and NVIDIA's repository is to stand back."""

    packages: tuple[tuple[str, ...], ...]
    templates: tuple[tuple[str, ...], ...]
    branches: tuple[int, int, int]
    headers: bool
    own: bool


def refusals(ctx: Context, steps: Sequence[Step]) -> list[Refusal]:
    """What forbids touching this host on its driver's account."""
    driver, found = ctx.state.driver, []
    if driver.error in HARDWARE:
        of = f", of {len(ctx.gpus)} here" if len(ctx.gpus) > 1 else ""
        found.append(Refusal(f"{HARDWARE[driver.error]}{of}: {driver.excerpt or driver.error}",
                             f"the cards belong to this {ctx.machine.kind}'s host: rent another" if ctx.foreign_kernel
                             else "look at power, slot and temperature; software can't mend it"))
    elif ctx.foreign_kernel:
        found += _foreign(ctx)
    if not ctx.foreign_kernel:
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
    driver, kind = ctx.state.driver, ctx.machine.kind
    wsl, floor = kind == "wsl", Version(ctx.driver_floor).major
    owner = "Windows" if wsl else "the host"
    loaded = version(driver.loaded_version)
    if loaded and loaded < Version(ctx.driver_floor):  # whatever else it complains of comes from that
        return [Refusal(f"host's driver {driver.loaded_version} can't serve {ctx.stack.cuda_tag} on "
                        f"{_archs(ctx)}: it takes ≥ {ctx.driver_floor}, and in a {kind} the driver "
                        f"belongs to {owner}", f"update the NVIDIA driver in Windows to ≥ {floor}" if wsl
                        else f"rent a host with driver ≥ {floor}")]
    if new := _too_new(ctx, driver.loaded_version):
        return [Refusal(f"host's driver {new}", f"take branch {_last(ctx)} in Windows" if wsl
                        else f"rent a host with driver {_last(ctx)} or older")]
    if ctx.driver_serves:
        return []
    if driver.error == "driver_library_mismatch" and not wsl:
        inside = f" {driver.installed_version}" if driver.installed_version else ""
        return [Refusal(f"the NVIDIA libraries{inside} in this {kind} aren't of the host's driver "
                        f"{driver.loaded_version or 'version'}: {driver.excerpt or driver.error}",
                        f"put the libraries of {driver.loaded_version or 'the host driver'}, the host's own version, "
                        f"inside (without kernel modules); where the engine mounts them, start the {kind} anew")]
    return [Refusal(f"the driver of this {kind} doesn't answer ({driver.error or 'unknown'})"
                    + (f": {driver.excerpt}" if driver.excerpt else ""),
                    f"it belongs to {owner}: " + ("update it there, then run `wsl --update` and `wsl --shutdown`" if wsl
                    else f"start the {kind} with its GPU, or rent another"))]


def _in_the_way(ctx: Context) -> list[Refusal]:
    """Why a driver that should be installed can't be, now."""
    machine, found = ctx.machine, []
    if machine.kind == "unknown":
        found.append(Refusal("whether this host is a container isn't known; a container's driver belongs to its host",
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
    if _packages(ctx) is None:
        last = f" and ≤ {_last(ctx)}" if _last(ctx) else ""
        found.append(Refusal(f"no driver packages are known for {machine.os.pretty} ({machine.arch})",
                             f"install driver ≥ {ctx.driver_floor}{last} by hand; it will then be adopted"))
    if virtual := next((gpu for gpu in ctx.gpus if gpu.vgpu), None):
        found.append(Refusal(f"{virtual.name} is a virtual GPU: its driver must go with that of the machine below, and "
                             "no public package does", "ask whoever runs that machine for its guest driver"))
    if machine.secure_boot == "enabled" and not from_own(ctx):
        found.append(Refusal("Secure Boot is on, and the driver's DKMS modules are not signed",
                             "switch it off in the firmware, or install modules signed by your distribution"))
    return found + busy(ctx, "the driver must be replaced")


def _too_old(ctx: Context) -> list[Refusal]:
    """Why the branch that would be installed can't serve: the knob's, or the last one for an old card beside."""
    floor, asked, last = Version(ctx.driver_floor).major, ctx.knobs.nvidia_driver_branch, _last(ctx)
    if last and last < branch(ctx):
        return [Refusal(f"{_names(ctx)} takes branch {last} at the latest, and the packages for "
                        f"{ctx.machine.os.pretty} begin with {branch(ctx)}", "take an older system, or another card")]
    if branch(ctx) >= floor:
        return []
    if asked < floor:
        return [Refusal(f"nvidia_driver_branch={asked} can't serve {ctx.stack.cuda_tag} on {_archs(ctx)}, which needs "
                        f"≥ {ctx.driver_floor}", f"set nvidia_driver_branch={floor} or later")]
    return [Refusal(f"no driver serves all of {_names(ctx)}: branch {branch(ctx)} is the last for one of them, and "
                    f"{ctx.driver_floor} is the least for another", "take one out")]


def _names(ctx: Context) -> str:
    return ", ".join(gpu.name for gpu in ctx.gpus)


def _flavour(ctx: Context) -> str | None:
    return next((f for gpu in ctx.gpus if (f := ctx.rules.flavour(gpu.compute_capability))), None)


def _last(ctx: Context) -> int | None:
    """The last branch that knows every card here: by the rules, or by what the kernel's module says itself."""
    ends = [end for gpu in ctx.gpus if (end := ctx.rules.last_branch(gpu.compute_capability))]
    ends += [int(found[1]) for line in ctx.state.kernel_log.lines if (found := LEGACY.search(line))]
    return min(ends, default=None)


def _too_new(ctx: Context, driver: str | None) -> str:
    """`595.71.05 leaves Tesla V100 out (sm_70): 580 is the last branch that knows it; no reboot helps`; "" where the
    driver isn't too new. Of cards that the stack can't use, nobody misses one."""
    found, last = version(driver), _last(ctx)
    if found is None or last is None or found.major <= last:
        return ""
    old = [gpu for gpu in ctx.fit if (end := ctx.rules.last_branch(gpu.compute_capability)) and end < found.major]
    if not old and not any(LEGACY.search(line) for line in ctx.state.kernel_log.lines):
        return ""
    names = ", ".join(sorted({gpu.name for gpu in old})) or "a card here"
    return (f"{driver} leaves {names} out ({_archs(ctx, old)}): {last} is the last branch that knows it, and no reboot "
            "helps" if old else f"{driver} leaves {names} out: by its own word it takes branch {last}")


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
    needed = {f for gpu in ctx.fit if (f := ctx.rules.flavour(gpu.compute_capability))}
    wrong_flavour = flavour is not None and bool(needed) and flavour not in needed
    wrong = found < Version(ctx.driver_floor) or wrong_flavour or bool(_too_new(ctx, installed))
    return Action.CHANGE if wrong else Action.NONE


def _wanted(ctx: Context) -> str:
    return f"{branch(ctx)} {_flavour(ctx) or 'open'}"


def branch(ctx: Context) -> int:
    """The wanted branch, or the last that still knows the oldest card here; where the repository has others alone, the
    least of those that serve."""
    wanted = min([ctx.knobs.nvidia_driver_branch, *([last] if (last := _last(ctx)) else [])])
    found = _packages(ctx)
    there = (found.own if from_own(ctx) else found.branches) if found else ()
    if not there or wanted in there:
        return wanted
    floor = Version(ctx.driver_floor).major
    return min((each for each in there if each >= max(wanted, floor)), default=max(there))


def _packages(ctx: Context) -> DriverSet | None:
    """The driver packages that are known for this system; None where there are none, or none that may be used."""
    found = ctx.rules.driver_set(ctx.machine.os.id, ctx.machine.os.version_id)
    return found if found and (found.own or repository_known(ctx)) else None


def from_own(ctx: Context) -> bool:
    """Whether the driver comes from the distribution's own archive: under Secure Boot, whose signature its modules
    have, and where NVIDIA's repository can't be trusted by one of our keys."""
    found = _packages(ctx)
    return bool(found and found.own) and (ctx.machine.secure_boot == "enabled" or not repository_known(ctx))


def _archs(ctx: Context, cards: Sequence[Gpu] | None = None) -> str:
    known = {gpu.compute_capability for gpu in (ctx.gpus if cards is None else cards) if gpu.compute_capability}
    return ", ".join(f"sm_{v.major}{v.minor}" for v in sorted(known)) or "this GPU"


def _demand(ctx: Context) -> str:
    """`sm_70 needs ≥ 525, proprietary modules, branch 580 at the latest`."""
    last = _last(ctx)
    return (f"{_archs(ctx)} needs ≥ {ctx.driver_floor}" + (f", {_flavour(ctx)} modules" if _flavour(ctx) else "")
            + (f", branch {last} at the latest" if last else ""))


def step(ctx: Context, before: Sequence[Step]) -> Step:
    """Adopted where it serves every card and the stack; in a container and in WSL the machine below owns it."""
    if ctx.foreign_kernel:
        running = ctx.state.driver.loaded_version or "unknown"
        return Step("NVIDIA driver", running, f"≥ {ctx.driver_floor}", Action.NA,
                    f"host's driver {running} serves {ctx.stack.cuda_tag}")
    action, (installed, flavour) = driver_action(ctx), _installed(ctx)
    now, demand = f"{installed} {flavour or ''}".strip() if installed else "none", _demand(ctx)
    if action is Action.NONE:
        return Step("NVIDIA driver", now, now, action, f"adopted: {demand}{_until(ctx, installed)}",
                    won=f"driver {now}")
    if new := _too_new(ctx, installed):
        demand = f"{new}; {demand}"
    demand += _until(ctx, str(branch(ctx)))
    found = _packages(ctx)
    if found is None:  # refused
        return Step("NVIDIA driver", now, _wanted(ctx), action, demand, bytes=None, fetches=("apt",))
    own, kind = from_own(ctx), _flavour(ctx) or "open"
    templates = found.own_templates(kind, ctx.machine.kernel) if own else found.templates(kind, branch(ctx))
    groups = [[name.replace(BRANCH, str(branch(ctx))) for name in group] for group in templates]
    if own:
        demand += f"; {ctx.machine.os.pretty}'s own packages, whose modules are signed: a new kernel takes its own"
    will_do = (branch(ctx), Version(ctx.driver_floor).major, _last(ctx) or LATEST)
    return Step("NVIDIA driver", now, _wanted(ctx), action, demand, bytes=found.bytes,
                payload=DriverPayload(tuple(map(tuple, groups)), tuple(map(tuple, templates)), will_do,
                                      not own and not ctx.machine.headers, own),
                fetches=("apt",), disk=disk(ctx, "driver", replaces=action is Action.CHANGE))


def _until(ctx: Context, driver: str | None) -> str:
    until = ctx.rules.until(driver)
    tense = "got" if until and ended(ctx, until) else "gets"
    return f"; branch {str(driver).partition('.')[0]} {tense} fixes until {until}" if until else ""


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
        rules.append(Rule(f"in a {machine.kind} the driver belongs to the machine below", OURS))
    elif packages := _packages(ctx):
        rules.append(Rule(f"driver packages are known for {packages.folder}", ctx.rules.source("drivers")))
    if until := ctx.rules.until(str(branch(ctx))):
        rules.append(Rule(f"branch {branch(ctx)} gets fixes until {until}", ctx.rules.source("branches")))
    return facts, rules


PLANNER = Planner(step, explain, knobs=("nvidia_driver", "nvidia_driver_branch", "allow_busy_gpu"), refusals=refusals,
                  needs=("repository",))
