"""flash-attn's rungs on one host: which wheels, whether a build, and why not the others. Pure.

The first rung, a wheel that another host of this controller built, is known only when the step runs
(deploy/flash_attn/fleet.py).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from qwen_rig.catalog.sources import load_sources
from qwen_rig.deploy.env.plan import current, record
from qwen_rig.deploy.toolkit.plan import compilers_come, least_nvcc, nvcc_releases
from qwen_rig.flash import others
from qwen_rig.flash.build import Source
from qwen_rig.flash.key import Key, words
from qwen_rig.flash.resources import arithmetic, jobs
from qwen_rig.flash.source import Room, misfits, unserved
from qwen_rig.plan.context import Context
from qwen_rig.plan.model import Action, Step

GIT = "git"  # a version, and the rung that has it


def digest(thing: Any) -> str:
    """A short fingerprint of plain data."""
    return hashlib.sha256(json.dumps(thing, sort_keys=True).encode()).hexdigest()[:16]


def flash_spec(ctx: Context) -> dict[str, Any]:
    """What the step is given: the wheels to try, best first; what may be built; why others are out of the question."""
    mode, gpu = ctx.knobs.flash_attn, ctx.knobs.verify_gpu
    wheels: list[dict[str, Any]] = []
    rejected = {"off": ["flash_attn=off"], "build": ["flash_attn=build: no prebuilt wheel is tried"]}.get(mode, [])
    builds: list[dict[str, Any]] = []
    if mode in ("auto", "wheel"):
        wheels, rejected = ctx.stack.flash_candidates(
            python=ctx.knobs.python, glibc=ctx.machine["glibc"],
            compute_capabilities=[gpu.compute_capability for gpu in ctx.fit],
            source=ctx.knobs.source_flash_attn, unverified=ctx.knobs.flash_attn_unverified)
        if ctx.knobs.flash_attn_unverified:
            wheels = [*wheels, *others(ctx.stack.torch, ctx.knobs.python, ctx.machine["glibc"],
                                       [gpu.compute_capability for gpu in ctx.fit])]
    if mode in ("auto", "build"):
        builds, why = _builds(ctx)
        rejected = [*rejected, *(f"no build: {line}" for line in why)]
    env, uuids = current(ctx), sorted(row["uuid"] for row in ctx.state["gpus"])
    about = [env["name"] if env else None, wheels, rejected,
             [[b["rung"], b["able"], b["source"], b["key"]] for b in builds],
             ctx.stack.flash_check, gpu, ctx.state["driver"]["loaded_version"], uuids]
    return {"package": ctx.stack.flash_package, "check": ctx.stack.flash_check, "gpu": gpu,
            "wheels": [{**wheel, "rung": "wheel"} for wheel in wheels], "builds": builds, "rejected": rejected,
            "fingerprint": digest(about)}


def _builds(ctx: Context) -> tuple[list[dict[str, Any]], list[str]]:
    """(what may be built for this host, the release first, `able` telling whether by it; why not by it)."""
    source = ctx.stack.flash_source
    if source is None:
        return [], []  # a stack that has no sources has nothing to explain
    torch = ctx.stack.torch
    room = Room([gpu.compute_capability for gpu in ctx.fit], ctx.machine["cores"], ctx.machine["memory_mib"],
                nvcc_releases(ctx), least_nvcc(ctx), bool(ctx.machine["compilers"].get("g++")) or compilers_come(ctx),
                ctx.machine["glibc"], ctx.knobs.flash_attn_jobs)
    cuda = torch.cuda if torch else None
    why = misfits(source, cuda, room)
    if unserved(source, cuda, room):
        return [], why
    if ctx.knobs.bundle:
        why = ["the bundle that serves this host has no sources of it"]
    made = [_build(ctx, source, "build", source.version, source.sdist, source.sha256, not why)]
    if ctx.knobs.flash_attn_git_head and source.cuda:
        made.append(_build(ctx, source, GIT, GIT, f"git+{load_sources().flash_attn_git.url}", None, not why))
    return made, why


def _build(ctx: Context, source: Source, rung: str, version: str, sources: str, sha256: str | None,
           able: bool) -> dict[str, Any]:
    torch, cores, memory = ctx.stack.torch, ctx.machine["cores"], ctx.machine["memory_mib"]
    asked = ctx.knobs.flash_attn_jobs
    archs = words(gpu.compute_capability for gpu in ctx.fit if gpu.compute_capability) if source.cuda else ()
    release = ".".join(torch.name.split(".")[:2]) if torch else "none"
    key = Key(source.package, version, release, torch.cuda if torch else "none", bool(torch and torch.cxx11abi),
              ctx.knobs.python, ctx.machine["glibc"], archs)
    made = {"rung": rung, "able": able, "source": sources, "sha256": sha256, "key": key.to_json(),
            "archs": list(archs), "known": list(source.archs), "cuda": source.cuda}
    return made if not able else made | {
        "requires": list(source.requires), "free_mib": source.free_mib,
        "jobs": asked or jobs(cores, memory),
        "arithmetic": f"flash_attn_jobs = {asked}" if asked else arithmetic(cores, memory)}


def _short(wheel: str) -> str:
    """`flash_attn-2.8.3` of a wheel's whole name: that one `explain` tells."""
    return "-".join(wheel.split("-")[:2]).partition("+")[0]


def _able(build: dict[str, Any]) -> bool:
    """Whether this very host can build it."""
    return bool(build["able"])


def _came_since(ctx: Context, spec: dict[str, Any], made: Mapping[str, Any]) -> bool:
    """Whether there is a wheel of the fleet's for a host that fell back to SDPA before it was built."""
    known = {row.get("sha256") for row in made.get("tried", ())}
    wanted = [Key.from_json(build["key"]) for build in spec["builds"]] if spec["gpu"] else []
    return made.get("rung") == "sdpa" and any(
        sha256 not in known and key.serves(want) for key, sha256 in ctx.fleet_wheels for want in wanted)


def _wanted(spec: dict[str, Any]) -> str:
    """`wheel X, else build for sm_90 with 8 jobs, else SDPA`."""
    rungs = [f"wheel {_short(wheel['name'])}" for wheel in spec["wheels"][:1]]
    for build in filter(_able, spec["builds"]):
        archs = ", ".join(f"sm_{arch}" for arch in build["archs"])
        what = "build" if build["rung"] != GIT else "build of the git head"
        rungs.append(f"{what}{f' for {archs}' if archs else ''} with {build['jobs']} job{'s' * (build['jobs'] != 1)}")
    return ", else ".join([*rungs, "SDPA"])


def decision(made: Mapping[str, Any]) -> dict[str, Any]:
    """What training.json says of the attention, of the step's record: the rung, why each one above it failed or was out
    of the question, what its code is and was proven by. One without a record is as SDPA, with nothing tried."""
    proof = made.get("proof") or {}
    return {"rung": made.get("rung", "sdpa"), "version": made.get("version"), "sha256": made.get("sha256"),
            "archs": made.get("archs", []),
            "tried": [{"rung": row.get("rung"), "why_not": row["why_not"], "last": row.get("last", [])}
                      for row in made.get("tried", ()) if row.get("why_not")],
            "rejected": made.get("rejected", []),
            "proof": {key: proof[key] for key in ("worst", "tolerance", "said") if key in proof} or None,
            "minutes": made.get("minutes", 0.0)}


def _bytes(spec: dict[str, Any]) -> int | None:
    """What the first attempt fetches; None where that isn't known, as of a wheel without a size or of sources."""
    if spec["wheels"]:
        size: int | None = spec["wheels"][0].get("bytes")
        return size
    return None if any(map(_able, spec["builds"])) else 0


def step(ctx: Context, env_changes: bool) -> Step:
    """The attempt; done again where what it was decided on has changed."""
    spec, made = flash_spec(ctx), record(ctx, "flash_attn")
    wanted = _wanted(spec)
    attempts = spec["wheels"] or any(map(_able, spec["builds"]))
    why = "; ".join([*(["an attempt: kept only if it imports and works"] if attempts else []), *spec["rejected"]])
    if env_changes or not made:
        return Step("flash_attn", "flash-attn", "none", wanted, Action.ADD, why,
                    known_after="env" if env_changes else "", data=spec,
                    bytes=_bytes(spec))
    now = f"{made.get('attention')}"
    if _came_since(ctx, spec, made):
        return Step("flash_attn", "flash-attn", now, f"the fleet's wheel, else {wanted}", Action.CHANGE,
                    "a host of this controller has built one since", data=spec)
    if made.get("fingerprint") == spec["fingerprint"]:
        return Step("flash_attn", "flash-attn", now, now, Action.NONE,
                    made.get("why") or "decided on this very env, driver and GPU")
    return Step("flash_attn", "flash-attn", now, wanted, Action.CHANGE,
                "decided on another env, driver or GPU: tried again", data=spec, bytes=_bytes(spec))
