"""The CUDA toolkit: wanted only where something will be compiled. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from packaging.version import Version

from qwen_rig.plan.apt import Packages, disk
from qwen_rig.plan.context import Context, version
from qwen_rig.plan.model import Action, Step
from qwen_rig.plan.place import repository_known
from qwen_rig.plan.planner import Parts, Planner, Rule, fact, gpus


def least_nvcc(ctx: Context) -> str:
    """The least nvcc that can compile here: for every GPU, and beside the host's glibc."""
    wanted = [ctx.rules.least_nvcc(gpu.compute_capability) for gpu in ctx.gpus] or ["12.0"]
    return max([*wanted, beside_glibc(ctx) or "0"], key=Version)


def beside_glibc(ctx: Context) -> str | None:
    """The least nvcc that compiles beside the host's glibc, where not any does."""
    return ctx.rules.nvcc_beside(version(ctx.machine.glibc))


def unbuildable(ctx: Context) -> str | None:
    """The least nvcc beside this glibc, where that is of a later CUDA than torch takes: nothing can be built here."""
    least = beside_glibc(ctx)
    return least if least and Version(least).major > Version(ctx.stack.cuda).major else None


def unfit_glibc(ctx: Context, release: str) -> str:
    """`nvcc 12.8 doesn't compile beside glibc 2.41, which takes nvcc ≥ 13.0`; "" where it does."""
    least = beside_glibc(ctx)
    return f"nvcc {release} doesn't compile beside glibc {ctx.machine.glibc}, which takes nvcc ≥ {least}" \
        if least and Version(release) < Version(least) else ""


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
    if not ctx.root or not repository_known(ctx) or _package(ctx) is None:
        return Action.NA
    return Action.CHANGE if releases else Action.ADD


def step(ctx: Context, before: Sequence[Step]) -> Step:
    """An nvcc that can compile for every card here, where one is wanted."""
    action = toolkit_action(ctx)
    releases = sorted({row.release for row in ctx.state.cuda if row.release}, key=Version)
    now, floor, package = ", ".join(releases) or "none", least_nvcc(ctx), _package(ctx)
    if action is Action.NONE:
        why = f"nvcc {releases[-1]} can compile for these GPUs"
        if Version(releases[-1]).major != Version(ctx.stack.cuda).major:
            why += f"; a source build would also need CUDA {Version(ctx.stack.cuda).major}.x, as {ctx.stack.cuda_tag}"
        return Step("CUDA toolkit", now, now, action, why, won=f"CUDA {releases[-1]}")
    if action is Action.NA:
        why = "nothing will be compiled: torch brings its own CUDA libraries"
        if _building(ctx):
            why = "flash_attn=build wants one of torch's own CUDA, which can't or mustn't be installed here"
        elif releases:
            unfit = unfit_glibc(ctx, releases[-1]) or f"nvcc {releases[-1]} is too old for these GPUs"
            why = f"{unfit}, but can't or mustn't be replaced here"
        asked = bool(releases) or _building(ctx) or ctx.knobs.cuda_toolkit == "always"
        if asked and (least := unbuildable(ctx)):
            why += (f"; glibc {ctx.machine.glibc} takes nvcc ≥ {least}, and {ctx.stack.cuda_tag} one of CUDA "
                    f"{Version(ctx.stack.cuda).major}: nothing can be built for it on this system")
        elif asked and package is None:
            why += f"; no package is known of an nvcc ≥ {floor} for {ctx.stack.cuda_tag}"
        return Step("CUDA toolkit", now, "-", action, why)
    assert package is not None  # else toolkit_action says NA
    least = max(floor, f"{Version(ctx.stack.cuda).major}.0", key=Version) if _building(ctx) else floor
    old = releases and Version(releases[-1]) < Version(floor)
    why = (unfit_glibc(ctx, releases[-1]) or f"nvcc {releases[-1]} would silently leave these GPUs' code out of a build"
           if old else f"asked for by {'flash_attn=build' if _building(ctx) else 'cuda_toolkit=always'}")
    return Step("CUDA toolkit", now, f"≥ {least}", action, why, bytes=ctx.rules.toolkit_bytes,
                fetches=("apt",), disk=disk(ctx, "toolkit"),
                payload=Packages((package[1],)))


def explain(ctx: Context) -> Parts:
    """The toolkits that are there, and the least nvcc that will do."""
    return [*gpus(ctx), *[fact("toolkit", f"{row.release} at {row.path}", "cuda.CudaToolkits")
                           for row in ctx.state.cuda]], [
        Rule(f"the least nvcc for these GPUs: {least_nvcc(ctx)}", ctx.rules.source("nvcc")),
        *([Rule(f"glibc {ctx.machine.glibc} takes nvcc ≥ {least}", ctx.rules.source("nvcc_glibc"))]
          if (least := beside_glibc(ctx)) else []),
        Rule("torch brings CUDA's libraries of its own: a toolkit is for compiling",
             "torch's wheels, which require the nvidia-* packages")]


PLANNER = Planner(step, explain, knobs=("cuda_toolkit",), needs=("repository",))
