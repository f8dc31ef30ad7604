"""host state × wanted stack × rules → plan. Pure: no SSH, no pyinfra, no clock; it knows no step by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from packaging.version import Version

from qwen_rig import step_choice
from qwen_rig.catalog.lock import MACHINE
from qwen_rig.catalog.rules import arch_of
from qwen_rig.plan import chosen, crossed, disk_space, drift, network, owner, place, python
from qwen_rig.plan.context import Context, given_away, version
from qwen_rig.plan.env import envs_dir
from qwen_rig.plan.model import Action, Applied, Plan, Refusal, Step
from qwen_rig.plan.planner import Planner, new_env

__all__ = ["Action", "Applied", "Context", "Plan", "Refusal", "Step", "assemble"]


def assemble(ctx: Context, planners: Mapping[str, Planner]) -> Plan:
    """The plan for one host: its steps in the planners' order, or why it is refused. Never raises for odd facts."""
    refused = _stack_refusals(ctx)
    if not ctx.gpus or _other_machine(ctx):  # nothing else that is true of it would change this verdict
        return Plan(ctx.host, _headline(ctx), (), tuple(refused), **_about(ctx))
    left_out = step_choice.left_out(ctx.knobs, planners)
    steps, would_change = _steps(ctx, planners, left_out)
    refused += chosen.missed(steps, would_change, planners)
    for name, planner in planners.items():
        refused += planner.refusals(ctx, steps) if name not in left_out else []
    refused += [*crossed.refusals(ctx, steps), *disk_space.refusals(ctx, steps), *network.refusals(ctx, steps),
                *owner.refusals(ctx, steps), *python.refusals(ctx, steps)]
    changes_env = new_env(steps)
    said = (*crossed.caveats(ctx, steps), *_caveats(ctx, steps), *(_unlocked(ctx) if changes_env else []),
            *network.caveats(ctx, steps), *owner.caveats(ctx, steps), *python.caveats(ctx, steps))
    known = _known(ctx) if changes_env else {}
    return Plan(ctx.host, _headline(ctx), tuple(steps), tuple(refused), said, **_about(ctx), **known)


def _steps(ctx: Context, planners: Mapping[str, Planner],
           left_out: Mapping[str, str]) -> tuple[list[Step], list[str]]:
    """(each planner's step, by its name, with a mark where only the rebooted host can tell; the names of those that are
    left out and would have changed something)."""
    steps: list[Step] = []
    would_change = []
    for name, planner in planners.items():
        if (step := planner.step(ctx, steps)) is not None:
            if name in left_out and step.action.changes:
                would_change.append(name)
                step = chosen.without(step, left_out[name])
            steps.append(replace(step, component=name))
    if any(step.action is Action.REBOOT for step in steps):
        steps = [replace(step, known_after="reboot") if planners[step.component].known_after_reboot(ctx, step) else step
                 for step in steps]
    return steps, would_change


def _about(ctx: Context) -> dict[str, Any]:
    """What a plan tells beside its steps."""
    return {"drift": drift.drift(ctx), "since": ctx.applied.when if ctx.applied else None,
            "gpu_users": _users(ctx), "fingerprint": drift.fingerprint(ctx)}


def _known(ctx: Context) -> dict[str, Any]:
    """What is known of the stack that is about to be installed; nothing of a stand-in, which is nobody's choice."""
    if ctx.stack.standin:
        return {}
    told = ctx.stack.advised(ctx.knobs.python, [gpu.compute_capability for gpu in ctx.fit],
                             ctx.model.family if ctx.model else None)
    return {"deviations": ctx.stack.deviations, "advisories": told}


def _users(ctx: Context) -> tuple[str, ...]:
    return tuple(map(str, ctx.machine.gpu_users))


def _other_machine(ctx: Context) -> bool:
    """Whether the host's processor is none that the locks have packages for."""
    return ctx.machine.arch not in (MACHINE, "")


def _stack_refusals(ctx: Context) -> list[Refusal]:
    """No GPU, or none that the stack's torch has code for."""
    if not ctx.gpus:
        seen = ctx.state.driver.excerpt
        if away := [pci for pci in ctx.state.pci_gpus if given_away(pci)]:
            return [Refusal(f"no NVIDIA GPU is left here: {away[0].driver} keeps {len(away)} for virtual machines",
                            "give one back to the host's driver, or take this host out of the inventory")]
        return [Refusal("no NVIDIA GPU" + (f" (nvidia-smi: {seen})" if seen else ""),
                        "a GPU must show on the PCI bus or in nvidia-smi; take this host out of the inventory")]
    if _other_machine(ctx):
        article = "an" if ctx.machine.arch[0] in "aeiou" else "a"
        return [Refusal(f"this is {article} {ctx.machine.arch} machine, and the locks hold packages for {MACHINE} only",
                        ctx.rules.machine_remedy)]
    torch, glibc = ctx.stack.torch, version(ctx.machine.glibc)
    if torch is None:
        return []
    if torch.glibc and glibc and glibc < Version(torch.glibc):
        return [Refusal(f"{ctx.machine.os.pretty} has glibc {glibc}, and torch {torch.name}'s wheels need "
                        f"{torch.glibc} or newer", "upgrade the system, or run the env in a container of a newer one")]
    known = [gpu for gpu in ctx.gpus if gpu.compute_capability is not None]
    unfit = [gpu for gpu in known
             if gpu.compute_capability and not ctx.rules.covered(torch.archs, gpu.compute_capability)]
    if known and len(unfit) == len(known):
        names = ", ".join(sorted({f"{gpu.name} (sm_{gpu.compute_capability.major}{gpu.compute_capability.minor})"
                                  for gpu in unfit if gpu.compute_capability}))
        return [Refusal(f"{names}: torch {torch.name} has code for {', '.join(torch.archs)} only",
                        _serving(ctx, [gpu.compute_capability for gpu in unfit if gpu.compute_capability]))]
    return []


def _caveats(ctx: Context, steps: Sequence[Step]) -> list[str]:
    """What is no step and no refusal, and still must be said."""
    said = place.caveats(ctx, envs_dir(ctx)) if new_env(steps) else []
    if ctx.machine.display_manager and any(step.action is Action.REBOOT for step in steps):
        said.append(f"{ctx.machine.display_manager} shows a desktop on this host: the reboot ends it")
    if ctx.machine.gpu_users:
        said.append(f"the GPU is in use by {', '.join(_users(ctx))}")
    if complaint := _unanswered(ctx, steps):
        said.append(f"the driver is there, and still nvidia-smi says: {complaint} (`rig doctor {ctx.host}` tells why)")
    if holder := ctx.machine.apt_lock:
        said.append(f"apt is locked by {holder.name} (pid {holder.pid}): the run waits for that process")
    said += _sliced(ctx)
    torch = ctx.stack.torch
    for gpu in ctx.gpus:
        if gpu.compute_capability is None:
            said.append(f"{gpu.name} isn't in the rules: what it can do is known only after its driver runs")
        elif torch and not ctx.rules.covered(torch.archs, gpu.compute_capability):
            said.append(f"{gpu.name}: torch {torch.name} has no code for it; the other cards are used")
    if new_env(steps):
        said += _near_code(ctx)
    for part, problem in ctx.state.problems.items():
        said.append(f"{part} could not be read: {problem}")
    return said


def _near_code(ctx: Context) -> list[str]:
    """New cards whose own architecture the stack's torch has not: they run another's code, of the same major."""
    torch = ctx.stack.torch
    cards = {gpu.name: gpu.compute_capability for gpu in ctx.fit
             if gpu.compute_capability and gpu.compute_capability >= ctx.rules.new_from}
    return [f"{name}: torch {torch.name} has no {arch_of(cc)}; the card runs its code for {arch}"
            for name, cc in cards.items() if torch and arch_of(cc) not in torch.archs
            for arch in torch.archs if arch.startswith(f"sm_{cc.major}") and ctx.rules.covered([arch], cc)]


def _sliced(ctx: Context) -> list[str]:
    """What the plan can't know of cards that are cut up."""
    cut = sorted({gpu.name for gpu in ctx.gpus if gpu.mig})
    return [f"MIG is on ({', '.join(cut)}): a process sees one slice, whose memory isn't known here, so the training "
            "settings are the smallest"] if cut else []


def _serving(ctx: Context, capabilities: list[Version]) -> str:
    """What would serve cards that the stack's torch has no code for: another build, where the rules know one."""
    for build in ctx.rules.serving(min(capabilities)):
        release, _, tag = build.partition(" ")
        if all(ctx.rules.covered(ctx.rules.archs[build], cc) for cc in capabilities):
            return (f"{ctx.rules.unfit_remedy}; torch {release} built for {tag} has code for it: "
                    "a stack file of your own with that build")
    return f"{ctx.rules.unfit_remedy}; no torch build in the rules has code for it"


def _unlocked(ctx: Context) -> list[str]:
    """What a new env will take although nobody vouches for its bytes, by the user's consent."""
    torch = ctx.stack.torch_source(ctx.knobs.source_torch_index, ctx.knobs.python)
    if torch is None or torch.hashed:
        return []
    return [f"{', '.join(torch.names)} come unchecked from {torch.index}: accept_unlocked_torch is set"]


def _headline(ctx: Context) -> str:
    """`RTX 5090 ×2 · Debian 12 · driver 570.169 (open)`: who the host is."""
    counts: dict[str, int] = {}
    for gpu in ctx.gpus:
        name = gpu.name.replace("NVIDIA ", "").replace("GeForce ", "")
        counts[name] = counts.get(name, 0) + 1
    cards = ", ".join(name + (f" ×{n}" if n > 1 else "") for name, n in counts.items()) or "no NVIDIA GPU"
    found = ctx.state.driver
    loaded = f"driver {found.loaded_version}" if found.loaded_version else "no driver loaded"
    if found.flavour:
        loaded += f" ({found.flavour})"
    pretty = ctx.machine.os
    return f"{cards} · {pretty.id.capitalize()} {pretty.version_id} · {loaded}"


def _changed(steps: Sequence[Step], *names: str) -> bool:
    return any(step.component in names and step.action.changes for step in steps)


def _unanswered(ctx: Context, steps: Sequence[Step]) -> str | None:
    """What nvidia-smi complains of although the driver and its loading are right; None where it answers."""
    driver = ctx.state.driver
    if ctx.foreign_kernel or driver.error is None or _changed(steps, "driver", "reboot"):
        return None
    return driver.excerpt or driver.error
