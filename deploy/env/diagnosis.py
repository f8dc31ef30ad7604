"""What is wrong with an env, each thing by its name: builds, versions, imports, kernels. Pure.

The guide's problems 2 (`no kernel image`) and 3 (versions in conflict), and what else a careless pip leaves behind.
"""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatch
from typing import Any

from packaging.version import Version

from qwen_rig.facts.records import VerificationRecord
from qwen_rig.plan.context import Context, version

SHOWN = 10  # wrong packages named one by one; of the rest their number
NO_KERNEL = "no kernel image"  # cudaErrorNoKernelImageForDevice, as the CUDA runtime words it
PROOFS = ("import", "kernel", "bf16_matmul")  # checks of qwen_rig/host/verify.py that a rebuilt env can mend


def torch_build(ctx: Context) -> str | None:
    """Why the torch that is there is the wrong build, or None. torch/version.py tells, not the label."""
    wanted, env = ctx.stack.torch, ctx.state.env
    if wanted is None or not env or "torch" not in env.packages:
        return None
    there = env.torch
    if not there:
        return "torch's build can't be told: torch/version.py can't be read"
    said = f"torch {there.version}"
    if not there.cuda:
        return f"{said} is a CPU build: it can use no GPU"
    if there.cuda == wanted.cuda:
        return None
    plain = f", as a plain `pip install torch=={env.packages['torch']}` brings it" \
        if "+" not in env.packages["torch"] else ""
    what = f"{said} is built for CUDA {there.cuda}, not {wanted.cuda}{plain}"
    return f"{what}; {lacking}" if (lacking := _lacking(ctx, there.cuda)) else what


def _lacking(ctx: Context, cuda: str) -> str:
    """The GPUs here that no build for that CUDA release can have code for: nvcc must know them first."""
    built = version(cuda)
    lost = {f"sm_{cc.major}{cc.minor}": least for gpu in ctx.gpus if (cc := gpu.compute_capability)
            and built and built < Version(least := ctx.rules.least_nvcc(cc))}
    if not lost:
        return ""
    return (f"it has no code for {', '.join(sorted(lost))} (CUDA {max(lost.values(), key=Version)} is the first that "
            f"can compile it), so every kernel ends in «{NO_KERNEL} is available for execution on the device»")


def packages(ctx: Context) -> dict[str, tuple[str | None, str]]:
    """What the env lacks, has in another version than the lock, or has with files that aren't the package's: name →
    (now, wanted); wanted is "" where no lock holds the package."""
    env = ctx.state.env
    have = env.packages if env else {}
    twice, torn = (set(env.duplicates), env.torn) if env else (set(), {})
    own = ctx.stack.torch_index
    absent = {name: (have.get(name), "") for name in own.packages if name not in have or name in torn} \
        if own and own.only else {}
    return absent | {
        name: (have.get(name), requirement.version)
        for name, requirement in ctx.stack.requirements(ctx.knobs.python).items()
        if name in twice or name in torn or version(have.get(name)) is None
        or _public(have[name]) != _public(requirement.version)}


def _public(text: str) -> str:
    """A version without its local part: PyTorch's index says 2.8.0+cu128, PyPI's own build just 2.8.0."""
    return Version(text).public


def proofs(ctx: Context, verified: VerificationRecord) -> list[str]:
    """What the last verification, where it still stands, says can't be done in this env."""
    found = []
    for check in verified.failed:
        if check.name not in PROOFS:
            continue
        why = str(check.why or check.measured or "no reason on record")
        if check.name == "import":
            found.append(f"`{ctx.stack.import_gate}` failed when last verified: {why}")
        elif NO_KERNEL in why:
            found.append(f"«{NO_KERNEL}» when last verified ({check.name}): this torch has no code for this GPU")
    return found


def named(ctx: Context, wrong: Mapping[str, tuple[str | None, str]]) -> tuple[str, ...]:
    """Each wrong package in a line, those that the stack pins first."""
    twice = set(ctx.state.env.duplicates) if ctx.state.env else set()
    order = sorted(wrong, key=lambda name: (name not in ctx.stack.pins, name))
    torn = ctx.state.env.torn if ctx.state.env else {}
    lines = [_line(name, *wrong[name], name in twice, torn.get(name)) for name in order[:SHOWN]]
    return (*lines, *([f"and {len(order) - SHOWN} more packages differ from the lock"] if len(order) > SHOWN else []))


def change(ctx: Context, name: str, now: str | None, wanted: str) -> str:
    """One wrong package, and what it becomes."""
    torn = ctx.state.env.torn.get(name) if ctx.state.env else None
    return f"{name}: {torn}" if torn and _same(now, wanted) else f"{name} {now or 'absent'} → {wanted}"


def _same(now: str | None, wanted: str) -> bool:
    """Whether a package has the wanted version, so that it is only its files that are wrong."""
    return not wanted or (version(now) is not None and _public(now or "") == _public(wanted))


def _line(name: str, now: str | None, wanted: str, twice: bool, torn: str | None) -> str:
    if twice:
        return f"{name} is there twice, as a broken upgrade leaves it; the lock has {wanted}"
    if now is None:
        return f"{name} is missing" + (f"; the lock has {wanted}" if wanted else "")
    if torn and _same(now, wanted):
        return f"{name}: {torn}"
    if version(now) is None:
        return f"{name} {now} is no version; the lock has {wanted}"
    older = "older" if Version(now) < Version(wanted) else "newer"
    return f"{name} {now} is {older} than the lock's {wanted}"


def rebuilds(ctx: Context, names: Mapping[str, Any]) -> bool:
    """Whether one of these packages is among those that mean an env built beside (docs/design.md, rule 9)."""
    return any(fnmatch(name, pattern) for name in names for pattern in ctx.stack.rebuild)
