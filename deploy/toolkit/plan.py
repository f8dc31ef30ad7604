"""Compilers and the CUDA toolkit: wanted only where something will be compiled. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from packaging.version import Version

from qwen_rig.plan.context import Context, version
from qwen_rig.plan.model import Action, Payload, Step


@dataclass(frozen=True)
class Packages(Payload):
    """What apt installs."""

    names: tuple[str, ...]


def steps(ctx: Context) -> list[Step]:
    """The C compilers, then the toolkit."""
    return [_compilers(ctx), _toolkit(ctx)]


def _compilers(ctx: Context) -> Step:
    have = ctx.machine.compilers
    missing = [name for name, found in (("gcc", have.gcc), ("g++", have.gxx)) if not found]
    now = f"gcc {have.gcc}" if have.gcc else "none"
    title, why = "C and C++ compiler", "Triton and torch.compile call gcc while training"
    if not missing:
        return Step("compilers", title, now, now, Action.NONE, why)
    if ctx.knobs.compilers == "never":
        return Step("compilers", title, now, "-", Action.NA, f"{why}; compilers=never: left as it is")
    if not ctx.root or not ctx.machine.tools.apt_get:
        return Step("compilers", title, now, "-", Action.NA, f"{why}, but installing needs root and apt")
    return Step("compilers", title, now, " ".join(missing), Action.ADD, why, payload=Packages(tuple(missing)),
                bytes=ctx.rules.compilers_bytes)


def least_nvcc(ctx: Context) -> str:
    """The least nvcc that can compile for every GPU here and for the stack's CUDA."""
    return max((ctx.rules.least_nvcc(gpu.compute_capability) for gpu in ctx.gpus), key=Version, default="12.0")


def compilers_come(ctx: Context) -> bool:
    """Whether this run installs the compilers."""
    return _compilers(ctx).action.changes


def nvcc_releases(ctx: Context) -> list[str]:
    """The nvcc releases that are here once the toolkit's step is done."""
    toolkit = _package(ctx)
    coming = [toolkit[0]] if toolkit and toolkit_action(ctx).changes else []
    return [*(row.release for row in ctx.state.cuda if row.release), *coming]


def _package(ctx: Context) -> tuple[str, str] | None:
    """(release, package) of the toolkit that can compile for these GPUs and the stack's CUDA; None: none is known."""
    return ctx.rules.toolkit(ctx.stack.cuda, least_nvcc(ctx))


def _building(ctx: Context) -> bool:
    """Whether flash-attn shall be built for this stack's torch, so that an nvcc of that torch's CUDA is wanted."""
    return ctx.knobs.flash_attn == "build" and bool(ctx.stack.flash_source and ctx.stack.flash_source.cuda)


def toolkit_action(ctx: Context) -> Action:
    """ADD where nothing is there, CHANGE where what is there is too old for these GPUs, else NONE or NA."""
    floor = Version(least_nvcc(ctx))
    releases = [found for row in ctx.state.cuda if (found := version(row.release))]
    major = Version(ctx.stack.cuda).major
    if any(release >= floor and (release.major == major or not _building(ctx)) for release in releases):
        return Action.NONE
    if ctx.knobs.cuda_toolkit == "never" or (ctx.knobs.cuda_toolkit == "auto"
                                             and (not (releases or _building(ctx)) or ctx.foreign_kernel)):
        return Action.NA
    system = ctx.machine.os
    if not ctx.root or ctx.rules.driver_set(system.id, system.version_id) is None or _package(ctx) is None:
        return Action.NA
    return Action.CHANGE if releases else Action.ADD


def _toolkit(ctx: Context) -> Step:
    action = toolkit_action(ctx)
    releases = sorted({row.release for row in ctx.state.cuda if row.release}, key=Version)
    now, floor, package = ", ".join(releases) or "none", least_nvcc(ctx), _package(ctx)
    if action is Action.NONE:
        why = f"nvcc {releases[-1]} can compile for these GPUs"
        if Version(releases[-1]).major != Version(ctx.stack.cuda).major:
            why += f"; a source build would also need CUDA {Version(ctx.stack.cuda).major}.x, as {ctx.stack.cuda_tag}"
        return Step("toolkit", "CUDA toolkit", now, now, action, why)
    if action is Action.NA:
        why = "nothing will be compiled: torch brings its own CUDA libraries"
        if _building(ctx):
            why = "flash_attn=build wants one of torch's own CUDA, which can't or mustn't be installed here"
        elif releases:
            why = f"nvcc {releases[-1]} is too old for these GPUs, but can't or mustn't be replaced here"
        if package is None:
            why += f"; no package is known of an nvcc ≥ {floor} for {ctx.stack.cuda_tag}"
        return Step("toolkit", "CUDA toolkit", now, "-", action, why)
    assert package is not None  # else toolkit_action says NA
    least = max(floor, f"{Version(ctx.stack.cuda).major}.0", key=Version) if _building(ctx) else floor
    old = releases and Version(releases[-1]) < Version(floor)
    why = (f"nvcc {releases[-1]} would silently leave these GPUs' code out of a build" if old
           else f"asked for by {'flash_attn=build' if _building(ctx) else 'cuda_toolkit=always'}")
    return Step("toolkit", "CUDA toolkit", now, f"≥ {least}", action, why, bytes=ctx.rules.toolkit_bytes,
                payload=Packages((package[1],)))
