"""Why a step of a plan is what it is: the facts read, the rules gone by with their sources, the decision. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from qwen_rig.deploy.env import diagnosis
from qwen_rig.deploy.env.plan import conda, current, env_record, envs_dir, records
from qwen_rig.deploy.flash_attn.plan import flash_spec
from qwen_rig.deploy.prefetch import plan as prefetch
from qwen_rig.deploy.toolkit.plan import least_nvcc
from qwen_rig.deploy.training.plan import fingerprint
from qwen_rig.managed import GUARD
from qwen_rig.plan.context import Context
from qwen_rig.plan.model import Plan, Step


@dataclass(frozen=True)
class Fact:
    """What was read of the host, and the fact that reads it (`pyinfra INVENTORY fact NAME` shows it alone)."""

    name: str
    value: str
    read_by: str


@dataclass(frozen=True)
class Rule:
    """What was gone by, and whose word it is."""

    text: str
    source: str


@dataclass(frozen=True)
class Explanation:
    """All of it for one step of one host."""

    host: str
    facts: tuple[Fact, ...]
    rules: tuple[Rule, ...]
    step: Step | None
    refusals: tuple[str, ...]


def explain(ctx: Context, plan: Plan, component: str) -> Explanation:
    """The explanation of one step. `step` is None where the host is refused before it has any."""
    step = next((step for step in plan.steps if step.component == component), None)
    if component == "prefetch" and step is None and plan.steps:  # in no plan unless it is wanted
        step = prefetch.step(ctx, False)
    facts, rules = _ABOUT[component](ctx)
    knobs = tuple(Rule(f"{name}={getattr(ctx.knobs, name)}", "knob: group_data/all.py, lab.yml or --data")
                  for name in _KNOBS.get(component, ()))
    return Explanation(ctx.host, tuple(facts), (*rules, *knobs), step,
                       tuple(f"{refusal.what} → {refusal.remedy}" for refusal in plan.refusals))


OURS = "qwen-rig's own rule"
Parts = tuple[list[Fact], list[Rule]]
_KNOBS = {
    "driver": ("nvidia_driver", "nvidia_driver_branch", "allow_busy_gpu"), "reboot": ("reboot",),
    "compilers": ("compilers",), "toolkit": ("cuda_toolkit",), "conda": ("conda_prefix",),
    "env": ("stack", "python", "env_name"),
    "flash_attn": ("flash_attn",), "verify": ("verify", "verify_gpu"), "repository": ("source_nvidia_apt",),
    "prefetch": ("prefetch_model",),
}


def _fact(name: str, value: Any, read_by: str) -> Fact:
    return Fact(name, "none" if value in (None, "", [], ()) else str(value), f"facts.{read_by}")


def _gpus(ctx: Context) -> list[Fact]:
    return [_fact("GPU", f"{gpu.name} ({gpu.device_id or 'no PCI id'}), compute capability "
                  f"{gpu.compute_capability or 'not known'}, {gpu.memory_mib or '?'} MiB",
                  "gpu.PciGpus, facts.gpu.Gpus")
            for gpu in ctx.gpus]


def _kernel(ctx: Context) -> Fact:
    evidence = "; ".join(ctx.machine.kind_evidence)
    return _fact("kind of host", ctx.machine.kind + (f" ({evidence})" if evidence else ""), "host.Host")


def _loaded(ctx: Context) -> list[Fact]:
    driver = ctx.state.driver
    return [_fact("driver loaded", f"{driver.loaded_version or 'none'} {driver.flavour or ''}".strip(),
                  "driver.NvidiaDriver"),
            _fact("driver installed", f"{driver.installed_version or 'none'} {driver.installed_flavour or ''}"
                  .strip(), "driver.NvidiaDriver"),
            _fact("driver's complaint", driver.excerpt or driver.error, "driver.NvidiaDriver")]


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


def _driver(ctx: Context) -> Parts:
    machine = ctx.machine
    facts = [*_gpus(ctx), *_loaded(ctx), _kernel(ctx), _fact("system", machine.os.pretty, "host.Host"),
             _fact("root", machine.sudo, "host.Host"), _fact("Secure Boot", machine.secure_boot, "host.Host"),
             _fact("GPU in use by", ", ".join(f"{u.name or 'unknown'} (pid {u.pid})" for u in machine.gpu_users),
                   "host.Host")]
    rules = _card_rules(ctx)
    if ctx.foreign_kernel:
        rules.append(Rule(f"in a {machine.kind} the driver belongs to whoever owns the kernel", OURS))
    elif packages := ctx.rules.driver_set(machine.os.id, machine.os.version_id):
        rules.append(Rule(f"driver packages are known for {packages.folder}", ctx.rules.source("drivers")))
    return facts, rules


def _repository(ctx: Context) -> Parts:
    there = [path for path, digest in ctx.state.files.items() if digest and path not in GUARD]
    return [_fact("apt sources of NVIDIA's", ", ".join(there), "probe.HostState")], [
        Rule("wanted where the driver or the toolkit must come from it", "the plan of those two steps"),
        Rule(f"{ctx.rules.nvidia_apt.url}, signed by its key alone", "qwen_rig/data/sources.yml, source_nvidia_apt")]


def _guard(ctx: Context) -> Parts:
    states = {None: "absent", "unreadable": "unreadable"}
    return [_fact(path, states.get(ctx.state.files.get(path), "there"), "probe.HostState") for path in GUARD] + [
        _fact("NVIDIA's packages", ", ".join(sorted(ctx.state.dpkg)[:4]), "driver.NvidiaPackages")], [
        Rule("nouveau claims the GPU at boot before NVIDIA's module can", "modprobe.d(5)"),
        Rule("Unattended-Upgrade::Package-Blacklist keeps a package from unattended upgrades",
             "apt.conf of unattended-upgrades")]


def _reboot(ctx: Context) -> Parts:
    return [*_loaded(ctx), _fact("nouveau loaded", ctx.state.driver.nouveau_loaded, "driver.NvidiaDriver")], [
        Rule("modules and libraries of two versions don't work together",
             "nvidia-smi's own error: Driver/library version mismatch")]


def _compilers(ctx: Context) -> Parts:
    have = ctx.machine.compilers
    return [_fact("gcc", have.gcc, "host.Host"), _fact("g++", have.gxx, "host.Host")], [
        Rule("Triton and torch.compile call gcc while training", ctx.rules.source("compilers"))]


def _toolkit(ctx: Context) -> Parts:
    return [*_gpus(ctx), *[_fact("toolkit", f"{row.release} at {row.path}", "cuda.CudaToolkits")
                           for row in ctx.state.cuda]], [
        Rule(f"the least nvcc for these GPUs: {least_nvcc(ctx)}", ctx.rules.source("nvcc")),
        Rule("torch brings CUDA's libraries of its own: a toolkit is for compiling",
             "torch's wheels, which require the nvidia-* packages")]


def _conda(ctx: Context) -> Parts:
    found = [_fact("conda", f"{row.kind} {row.version or ''} at {row.prefix}, "
                   + ("sound" if row.sound else "broken"), "conda.CondaInstalls") for row in ctx.state.conda]
    used = conda(ctx)
    return found, [Rule("a sound one is adopted, a broken one left alone" + (f": {used.prefix}" if used else ""),
                        OURS)]


def _env(ctx: Context) -> Parts:
    env, generation, torch = ctx.state.env, current(ctx), ctx.stack.torch
    facts = [_fact("env", f"{env.path} → {env.target or 'a folder, no link of ours'}" if env else None,
                   "env.EnvPackages")]
    if env:
        build = env.torch
        facts += [_fact("Python", env.python, "env.EnvPackages"),
                  _fact("packages", len(env.packages), "env.EnvPackages (*.dist-info)"),
                  _fact("torch's build", f"{build.version}, CUDA {build.cuda or 'none'}" if build else None,
                        "env.EnvPackages (torch/version.py)")]
        facts += [_fact("wrong", line, "env.EnvPackages")
                  for line in diagnosis.named(ctx, diagnosis.packages(ctx))]
    if generation:
        facts.append(_fact("env before it", env_record(ctx).previous, "probe.HostState (.rig/env.json)"))
    rules = [Rule(f"stack {ctx.stack.name}: {len(ctx.stack.requirements(ctx.knobs.python))} packages with hashes, "
                  f"lock {ctx.stack.lock_id}", str(ctx.stack.lock.name if ctx.stack.lock else "no lock"))]
    if torch:
        rules.append(Rule(f"torch {torch.release} for CUDA {torch.cuda}, code for {', '.join(torch.archs)}",
                          torch.source))
    rules += [Rule(f"{name} {pin.version}", pin.source) for name, pin in ctx.stack.pins.items()]
    rules.append(Rule(f"{', '.join(ctx.stack.rebuild)} wrong, or a broken import: built beside; else mended in place",
                      OURS))
    return facts, rules


def _flash(ctx: Context) -> Parts:
    spec, made = flash_spec(ctx), records(ctx).flash_attn
    return [*_gpus(ctx), _fact("glibc", ctx.machine.glibc, "host.Host"),
            _fact("nvcc", ", ".join(row.release for row in ctx.state.cuda if row.release),
                  "cuda.CudaToolkits"),
            _fact("memory and cores", f"{ctx.machine.memory_mib} MiB, {ctx.machine.cores:g}", "host.Host"),
            _fact("decided before", f"{made.attention}: {made.why or 'no reason on record'}" if made
                  else None, "probe.HostState (.rig/flash_attn.json)")], [
        *[Rule(f"candidate: {wheel.name}", f"stack {ctx.stack.name}") for wheel in spec.wheels],
        *[Rule(f"{build.rung}: {build.source} "
               f"{'with ' + build.here.arithmetic if build.here else 'by another host of the run, if at all'}; for "
               f"{', '.join(f'sm_{arch}' for arch in build.key.archs) or 'any card'}",
               "qwen_rig/data/flash.yml") for build in spec.builds],
        *[Rule(f"out: {why}", f"stack {ctx.stack.name}" if not why.startswith("no build")
               else "qwen_rig/data/flash.yml")
          for why in spec.rejected],
        Rule("an attempt; SDPA is a normal outcome", "guide, step 4, plan B")]


def _training(ctx: Context) -> Parts:
    made = records(ctx).flash_attn
    return [*_gpus(ctx), _fact("attention", made.attention if made else None,
                               "probe.HostState (.rig/flash_attn.json)")], [
        Rule(f"effective batch {ctx.rules.effective_batch}, split by the smallest card's memory",
             ctx.rules.source("batch")),
        Rule(f"bf16 and tf32 from compute capability {ctx.rules.bf16_from} on", "NVIDIA Ampere tuning guide")]


def _verify(ctx: Context) -> Parts:
    made = records(ctx).verify
    return [_fact("proved before", made.overall if made else None, "probe.HostState (.rig/verify.json)"),
            _fact("for", made.fingerprint if made else None, "probe.HostState (.rig/verify.json)"),
            _fact("now", fingerprint(ctx), "probe.HostState (env, driver, GPUs, kernel, attention)"),
            _fact("env", envs_dir(ctx), "conda.CondaInstalls")], [
        Rule("done again when its fingerprint differs, or when asked for", OURS)]


def _prefetch(ctx: Context) -> Parts:
    made, size = records(ctx).prefetch, prefetch.size_mib(ctx.knobs.prefetch_model or "")
    return [_fact("prefetched before", made.model if made else None, "probe.HostState (.rig/prefetch.json)"),
            _fact("goes to", prefetch.home(ctx), "probe.HostState")], [
        Rule(f"its weights take {size} MiB" if size else "its size is only known from the hub's listing",
             "qwen_rig/data/models.yml"),
        Rule("skipped where every file of its snapshot is there", OURS)]


_ABOUT: Mapping[str, Any] = {
    "repository": _repository, "driver": _driver, "guard": _guard, "reboot": _reboot, "compilers": _compilers,
    "toolkit": _toolkit, "conda": _conda, "env": _env, "flash_attn": _flash, "training": _training, "verify": _verify,
    "prefetch": _prefetch,
}
STEPS = tuple(_ABOUT)
