"""flash-attn's rungs on one host: which wheels, whether a build, and why not the others. Pure.

A wheel that another host of the same trust domain builds in this run is known only when the step runs
(deploy/flash_attn/fleet.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from qwen_rig.catalog import flash4
from qwen_rig.catalog.flash_build import Source, flash_file
from qwen_rig.catalog.flash_wheels import Candidate, others
from qwen_rig.catalog.hub_kernel import RUNG as KERNEL
from qwen_rig.catalog.hub_kernel import kernel
from qwen_rig.catalog.sources import load_sources
from qwen_rig.deploy.compilers import plan as compilers
from qwen_rig.deploy.toolkit.plan import beside_glibc, least_nvcc, nvcc_releases
from qwen_rig.facts.records import AttentionRecord, BuiltBy
from qwen_rig.flash.key import Key, Known, words
from qwen_rig.flash.resources import arithmetic, jobs
from qwen_rig.flash.source import Room, misfits, unserved
from qwen_rig.frozen import frozen
from qwen_rig.plan.context import Context
from qwen_rig.plan.digest import digest
from qwen_rig.plan.env import current, envs_dir, records
from qwen_rig.plan.model import Action, Payload, Step
from qwen_rig.plan.planner import Parts, Planner, Rule, fact, gpus, new_env

FETCHES = ("flash_attn",)  # wheels of a release, or sources
UNKNOWN = "nobody vouches for its bytes (a sha256 in `pinned`, or flash_attn_unverified, opens it)"
UNASKED = "nobody has asked yet for its files and their sha256 (`make pins` opens it)"
FA4_FILE = "qwen_rig/data/flash-attn-4.yml"
REASONS = {"no build": "qwen_rig/data/flash.yml", "flash-attn 4": FA4_FILE}  # how one begins → the file that gives it
PREBUILT = ("auto", "wheel", flash4.FA4)  # the knob's words by which prebuilt ones are tried
GIT = "git"  # a version, and the rung that has it
PROVEN_ONCE = (64, 128)  # head dimensions: what release 0.2.0 proved, and didn't write down


@frozen
class Here:
    """A build on this very host: what it must be installed first, room in MiB, jobs side by side, and the sum behind
    their number."""

    requires: tuple[str, ...]
    free_mib: int
    jobs: int
    arithmetic: str


@frozen
class BuildSpec:
    """A wheel that may be built for this host. `source`: what pip is given, `sha256` None: not known; `known`:
    FLASH_ATTN_CUDA_ARCHS's words that the sources know; `cuda`: they take an nvcc; `here` None: only another host can
    build it."""

    rung: str
    source: str
    sha256: str | None
    key: Key
    known: tuple[str, ...]
    cuda: bool
    here: Here | None


@frozen
class AttentionPayload(Payload):
    """What the attempt is given: the wheels to try, best first; what may be built, the release first; why others are
    out of the question; the program that proves one; and the digest of the decision's inputs."""

    package: str | None
    check: str | None
    gpu: bool
    wheels: tuple[Candidate, ...]
    builds: tuple[BuildSpec, ...]
    rejected: tuple[str, ...]
    fingerprint: str
    head_dims: tuple[int, ...] = ()

    @property
    def able(self) -> tuple[tuple[BuildSpec, Here], ...]:
        """What this very host can build, and how."""
        return tuple((build, build.here) for build in self.builds if build.here)


def flash_spec(ctx: Context) -> AttentionPayload:
    """What the step is given."""
    mode, gpu = ctx.knobs.flash_attn, ctx.knobs.verification_gpu
    wheels: list[Candidate] = []
    rejected = {"off": ["flash_attn=off"], "build": ["flash_attn=build: no prebuilt wheel is tried"]}.get(mode, [])
    builds: list[BuildSpec] = []
    if mode in PREBUILT:
        wheels, rejected = ctx.stack.flash_candidates(
            python=ctx.knobs.python, glibc=ctx.machine.glibc,
            compute_capabilities=[gpu.compute_capability for gpu in ctx.fit],
            source=ctx.knobs.source_flash_attn, unverified=ctx.knobs.flash_attn_unverified)
        wheels += [wheel for wheel in _others(ctx) if wheel.sha256 or (ctx.knobs.flash_attn_unverified and wheel.url)]
    if mode == flash4.FA4:
        asked, why = flash4.candidate(ctx.stack.pins, ctx.stack.torch, ctx.knobs.python,
                                      [gpu.compute_capability for gpu in ctx.fit], ctx.head_dims)
        if asked and ctx.knobs.bundle:
            asked, why = None, ["flash-attn 4: the bundle that serves this host doesn't hold it"]
        wheels, rejected = [*filter(None, [asked]), *wheels], [*why, *rejected]
    if mode in ("auto", "build", flash4.FA4):
        builds, why = _builds(ctx)
        rejected = [*rejected, *(f"no build: {line}" for line in why)]
    return AttentionPayload(ctx.stack.flash_package, ctx.stack.flash_check, gpu, tuple(wheels), tuple(builds),
                            tuple(rejected), _fingerprint(ctx, wheels, builds, rejected), ctx.head_dims)


def _others(ctx: Context) -> list[Candidate]:
    """What somebody else built, and would fit: open and closed ones, the Hub's kernel last."""
    cards = [gpu.compute_capability for gpu in ctx.fit]
    found = None if ctx.knobs.bundle else kernel(ctx.stack.pins, ctx.stack.torch, ctx.machine.glibc, cards)
    return [*others(ctx.stack.torch, ctx.knobs.python, ctx.machine.glibc, cards), *filter(None, [found])]


def _closed(ctx: Context, spec: AttentionPayload) -> list[Candidate]:
    """Those that fit, and aren't tried for want of a sha256."""
    return [wheel for wheel in _others(ctx) if wheel not in spec.wheels] if ctx.knobs.flash_attn in PREBUILT else []


def _fingerprint(ctx: Context, wheels: Sequence[Candidate], builds: Sequence[BuildSpec],
                 rejected: Sequence[str]) -> str:
    """The decision's inputs as a digest. Records on hosts hold it: in another form, every host tries again."""
    env, uuids = current(ctx), sorted(gpu.uuid or "" for gpu in ctx.state.gpus)
    about = [env.name if env else None, [wheel.pinned() for wheel in wheels], list(rejected),
             [[build.rung, build.here is not None, build.source, build.key.to_json()] for build in builds],
             ctx.stack.flash_check, ctx.knobs.verification_gpu, ctx.state.driver.loaded_version, uuids]
    return digest(about)


def _builds(ctx: Context) -> tuple[list[BuildSpec], list[str]]:
    """(what may be built for this host, the release first; why not by it)."""
    source = ctx.stack.flash_source
    if source is None:
        return [], []  # a stack that has no sources has nothing to explain
    torch = ctx.stack.torch
    room = Room([gpu.compute_capability for gpu in ctx.fit], ctx.machine.cores, ctx.machine.memory_mib,
                nvcc_releases(ctx), least_nvcc(ctx), bool(ctx.machine.compilers.gxx) or compilers.come(ctx),
                ctx.machine.glibc, ctx.knobs.flash_attn_jobs, beside_glibc(ctx))
    cuda = torch.cuda if torch else None
    why = misfits(source, cuda, room)
    if unserved(source, cuda, room):
        return [], why
    if ctx.knobs.bundle:
        why = ["the bundle that serves this host has no sources of it"]
    made = [_build(ctx, source, "build", source.version, source.sdist, source.sha256, not why)]
    if ctx.knobs.flash_attn_git_head and source.cuda:
        made.append(_build(ctx, source, GIT, GIT, f"git+{load_sources().flash_attn.git}", None, not why))
    return made, why


def _build(ctx: Context, source: Source, rung: str, version: str, sources: str, sha256: str | None,
           able: bool) -> BuildSpec:
    torch, cores, memory = ctx.stack.torch, ctx.machine.cores, ctx.machine.memory_mib
    asked = ctx.knobs.flash_attn_jobs
    archs = words(gpu.compute_capability for gpu in ctx.fit if gpu.compute_capability) if source.cuda else ()
    release = ".".join(torch.name.split(".")[:2]) if torch else "none"
    key = Key(source.package, version, release, torch.cuda if torch else "none", bool(torch and torch.cxx11abi),
              ctx.knobs.python, ctx.machine.glibc or "none", archs)  # none: ruled out before
    here = Here(source.requires, source.free_mib, asked or jobs(cores, memory),
                f"flash_attn_jobs = {asked}" if asked else arithmetic(cores, memory)) if able else None
    return BuildSpec(rung, sources, sha256, key, source.archs, source.cuda, here)


def _short(wheel: Candidate) -> str:
    """`wheel flash_attn-2.8.3`, `kernel kernels-community/flash-attn2 v3`: the whole name `explain` tells."""
    if wheel.rung == KERNEL:
        return f"kernel {wheel.name.partition(',')[0]}"
    return "wheel " + "-".join(wheel.name.split("-")[:2]).partition("+")[0]


def built_on(ctx: Context, host: str) -> str:
    """Where a wheel of the host's trust domain is from: `built on lab-02, domain lab`."""
    before = "here before" if host == ctx.host else f"on {host}"
    return f"built {before}{f', {ctx.domain}' if ctx.domain.name is not None else ''}"


def _shared(ctx: Context, spec: AttentionPayload) -> list[Known]:
    """The wheels of the host's trust domain that serve it."""
    wanted = [build.key for build in spec.builds] if spec.gpu else []
    return [wheel for wheel in ctx.shared_wheels if any(wheel.key.serves(want) for want in wanted)]


def _came_since(ctx: Context, spec: AttentionPayload, made: AttentionRecord) -> Known | None:
    """The wheel of its trust domain that was built since a host fell back to SDPA; None where there is none."""
    known = {row.sha256 for row in made.tried}
    new = [wheel for wheel in _shared(ctx, spec) if wheel.sha256 not in known]
    return new[0] if made.rung == "sdpa" and new else None


def _stranger(ctx: Context, made: AttentionRecord) -> str:
    """The host that built what is installed, where that is outside the trust domain; "" where all is well. Release
    0.2.0 kept no domain: what it took from another host counts as the domain's once the user has named one."""
    if made.rung != "fleet":
        return ""
    built = made.built or BuiltBy()
    known_before = built.domain is None and (ctx.domain.name is not None or built.host == ctx.host)
    return "" if built.domain == ctx.domain.id or known_before else built.host or "another host"


def _wanted(ctx: Context, spec: AttentionPayload) -> str:
    """`wheel X, else the one built on lab-02, domain lab, else build for sm_90 with 8 jobs, else SDPA`."""
    pinned = [wheel for wheel in spec.wheels if wheel.sha256]
    rungs = [_short(wheel) for wheel in pinned[:1]]
    rungs += [f"the one {built_on(ctx, wheel.host)}" for wheel in _shared(ctx, spec)[:1]]
    rungs += [_short(wheel) for wheel in spec.wheels[:1] if not pinned]
    for build, here in spec.able:
        archs = ", ".join(f"sm_{arch}" for arch in build.key.archs)
        what = "build" if build.rung != GIT else "build of the git head"
        rungs.append(f"{what}{f' for {archs}' if archs else ''} with {here.jobs} job{'s' * (here.jobs != 1)}")
    return ", else ".join([*rungs, "SDPA"])


def decision(record: AttentionRecord | None) -> dict[str, Any]:
    """What training.json says of the attention, of the step's record: the rung, why each one above it failed or was out
    of the question, what its code is and was proven by. One without a record is as SDPA, with nothing tried."""
    made = record or AttentionRecord()
    proof = made.proof or {}
    return {"rung": made.rung or "sdpa", "version": made.version, "sha256": made.sha256, "archs": list(made.archs),
            "tried": [{"rung": row.rung, "why_not": row.why_not, "last": list(row.last)}
                      for row in made.tried if row.why_not],
            "rejected": list(made.rejected),
            "proof": {key: proof[key] for key in ("worst", "tolerance", "said") if key in proof} or None,
            "minutes": made.minutes, **({"speed": made.speed} if made.speed else {})}


def environment(ctx: Context, made: AttentionRecord | None) -> dict[str, str]:
    """What training's environment must hold for a kernel of the Hub (where attention.py has laid it), or for flash-attn
    4 (where it keeps what it has compiled)."""
    repo, folder = load_sources().flash_attn.kernel.repo, f"{envs_dir(ctx)}/{ctx.knobs.env_name}/.rig/kernels"
    of: dict[str | None, dict[str, str]] = {
        repo: {"LOCAL_KERNELS": f"{repo}={folder}/{repo}"},
        "flash_attention_4": {"FLASH_ATTENTION_CUTE_DSL_CACHE_ENABLED": "1",
                              "FLASH_ATTENTION_CUTE_DSL_CACHE_DIR": f"{folder}/flash-attn-4"}}
    return of.get(made.attention if made else None, {})


def _other_models(ctx: Context, spec: AttentionPayload, made: AttentionRecord) -> str:
    """Why what was decided for other models' head dimensions doesn't count for the ones wanted now; "" where it does,
    or where nothing was tried, for which it can't matter."""
    proven = set(PROVEN_ONCE if made.head_dims is None else made.head_dims)
    counts = set(spec.head_dims) <= proven if made.head_dims is None else set(spec.head_dims) == proven
    if counts or not made.tried or not (spec.wheels or spec.builds):
        return ""
    whose = ctx.model.name if ctx.model else f"stack {ctx.stack.name}"
    return f"decided for head_dim {_dims(proven)}, and {whose} has {_dims(spec.head_dims)}: tried again"


def _dims(head_dims: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(head_dims)))


def _kept_if(spec: AttentionPayload) -> str:
    """What decides: our own script knows head dimensions and times them; a module of a package's own doesn't."""
    if not spec.head_dims or not (spec.check or "").endswith(".py"):
        return "tried, and kept only if it imports and works"
    return f"tried, and kept only if correct and faster than SDPA on this card, for head_dim {_dims(spec.head_dims)}"


def _fetches(spec: AttentionPayload) -> tuple[str, ...]:
    """The roles that the attempt may fetch from."""
    return (*FETCHES, "huggingface") if any(wheel.rung == KERNEL for wheel in spec.wheels) else FETCHES


def _bytes(spec: AttentionPayload) -> int | None:
    """What the first attempt fetches; None where that isn't known, as of a wheel without a size or of sources."""
    if spec.wheels:
        return spec.wheels[0].bytes
    return None if spec.able else 0


def step(ctx: Context, before: Sequence[Step]) -> Step:
    """The attempt; done again where what it was decided on has changed."""
    spec, made, env_changes = flash_spec(ctx), records(ctx).flash_attn, new_env(before)
    wanted = _wanted(ctx, spec)
    unasked = [_short(wheel) for wheel in _closed(ctx, spec) if not wheel.url]
    why = "; ".join([*([_kept_if(spec)] if spec.wheels or spec.able else []), *spec.rejected,
                     *([f"closed: {', '.join(unasked)}: {UNASKED}"] if unasked else [])])
    if env_changes or not made:
        return Step("flash-attn", "none", wanted, Action.ADD, why,
                    known_after="env" if env_changes else "", payload=spec, fetches=_fetches(spec), bytes=_bytes(spec))
    now = f"{made.attention}"
    if stranger := _stranger(ctx, made):
        return Step("flash-attn", now, wanted, Action.CHANGE,
                    f"the one in {envs_dir(ctx)}/{ctx.knobs.env_name} was built on {stranger}, outside this host's "
                    "trust domain: tried again (trust_domain names the hosts that share builds)", payload=spec,
                    fetches=_fetches(spec), bytes=_bytes(spec))
    if came := _came_since(ctx, spec, made):
        return Step("flash-attn", now, wanted, Action.CHANGE, f"one was {built_on(ctx, came.host)}, since",
                    payload=spec, fetches=_fetches(spec))
    if other := _other_models(ctx, spec, made):
        return Step("flash-attn", now, wanted, Action.CHANGE, other, payload=spec, fetches=_fetches(spec),
                    bytes=_bytes(spec))
    if made.fingerprint == spec.fingerprint:
        origin = f" ({built_on(ctx, made.built.host)})" if made.rung == "fleet" and made.built else ""
        return Step("flash-attn", now, now, Action.NONE,
                    f"{made.why or 'decided with this env, driver and GPU'}{origin}", won=_won(ctx, made))
    return Step("flash-attn", now, wanted, Action.CHANGE,
                "decided with another env, driver or GPU: tried again", payload=spec, fetches=_fetches(spec),
                bytes=_bytes(spec))


def _won(ctx: Context, made: AttentionRecord) -> str:
    """`flash-attn 2.8.3: a prebuilt wheel`: the rung that held, or why none did."""
    if made.rung in (None, "sdpa"):
        return f"attention by SDPA: {made.why}" if made.why else "attention by SDPA"
    ways = {"wheel": "a prebuilt wheel", KERNEL: "Hugging Face's kernel", flash4.FA4: "as asked for",
            "fleet": f"{built_on(ctx, made.built.host)}" if made.built else "built before",
            "build": "built here", GIT: "built here from the git head"}
    return f"flash-attn {made.version or ''}: {ways.get(str(made.rung), str(made.rung))}".replace(" :", ":")


def explain(ctx: Context) -> Parts:
    """What decides which rungs are open."""
    spec, made = flash_spec(ctx), records(ctx).flash_attn
    return [*gpus(ctx), fact("glibc", ctx.machine.glibc, "host.Host"),
            fact("nvcc", ", ".join(row.release for row in ctx.state.cuda if row.release),
                  "cuda.CudaToolkits"),
            fact("memory and cores", f"{ctx.machine.memory_mib} MiB, {ctx.machine.cores:g}", "host.Host"),
            fact("trust domain", ctx.domain, "probe.HostState; the knob trust_domain"),
            fact("decided before", f"{made.attention}: {made.why or 'no reason on record'}" if made
                  else None, "probe.HostState (.rig/flash_attn.json)"),
            fact("proven for head_dim", _dims(made.head_dims) if made and made.head_dims else None,
                 "probe.HostState (.rig/flash_attn.json)"),
            fact("its speed", made.speed or None if made else None, "probe.HostState (.rig/flash_attn.json)")], [
        *[Rule(f"candidate: {wheel.name}", {KERNEL: "qwen_rig/data/sources.yml", flash4.FA4: FA4_FILE}.get(
            wheel.rung, f"stack {ctx.stack.name}")) for wheel in spec.wheels],
        *[Rule(f"closed: {wheel.name}: {UNKNOWN if wheel.url else UNASKED}", "qwen_rig/data/sources.yml")
          for wheel in _closed(ctx, spec)],
        *[Rule(f"candidate: {built_on(ctx, wheel.host)}, sha256 {wheel.sha256[:12]}…", "this controller's cache")
          for wheel in _shared(ctx, spec)],
        *[Rule(f"{build.rung}: {build.source} "
               f"{'with ' + build.here.arithmetic if build.here else 'by another host of the run, if at all'}; for "
               f"{', '.join(f'sm_{arch}' for arch in build.key.archs) or 'any card'}",
               "qwen_rig/data/flash.yml") for build in spec.builds],
        *[Rule(f"out: {why}", next((file for begins, file in REASONS.items() if why.startswith(begins)),
                                   f"stack {ctx.stack.name}")) for why in spec.rejected],
        *([Rule(f"for head_dim {_dims(spec.head_dims)}: {ctx.model.name if ctx.model else 'all that the stack trains'}",
                "qwen_rig/data/models.yml")] if spec.head_dims else []),
        *([Rule(f"kept if faster than SDPA by {flash_file().proof.faster_pct:g} % for each head_dim, else SDPA",
                "qwen_rig/data/flash.yml")] if (spec.check or "").endswith(".py") else []),
        Rule("tried; SDPA is a normal result", "guide, step 4, plan B")]


def _known_after_reboot(ctx: Context, step: Step) -> bool:
    return step.action.changes and any(gpu.compute_capability is None for gpu in ctx.gpus)


PLANNER = Planner(step, explain, knobs=("flash_attn",), known_after_reboot=_known_after_reboot,
                  needs=("compilers", "toolkit", "env"))
