"""The env: right as it is, mended in place, or built beside and linked. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from qwen_rig.deploy.env import diagnosis
from qwen_rig.deploy.env.proof import failed_checks
from qwen_rig.facts._conda import NUMBER
from qwen_rig.facts.state import Env
from qwen_rig.frozen import frozen
from qwen_rig.plan import choice
from qwen_rig.plan.context import Context, gib
from qwen_rig.plan.env import aside_names, current, env_record, envs_dir, fits_shebang, generations
from qwen_rig.plan.model import Action, Payload, Refusal, Step
from qwen_rig.plan.place import disk_at, usable
from qwen_rig.plan.planner import OURS, Parts, Planner, Rule, fact

NAMED = 3  # wrong packages that the step itself names; more stand below it, a line each


@frozen
class Build(Payload):
    """An env built beside: the name of its folder; whether it is `kept`, left aside whole and only linked again;
    whether it is filled `afresh`, past the installer's cache (uv links files out of it into envs: who edits one in
    place spoils both); the name under which an env of the user's own goes on `aside`, empty where none is there."""

    generation: str
    kept: bool
    afresh: bool
    aside: str = ""

    @property
    def mode(self) -> str:
        return "kept" if self.kept else "build"

    @property
    def new_env(self) -> bool:
        return True


@frozen
class Mend(Payload):
    """Single packages put right in the env at `path`, past the installer's cache where that may be spoilt too."""

    names: tuple[str, ...]
    path: str
    afresh: bool = False

    @property
    def mode(self) -> str:
        return "mend"


def _number(ctx: Context, name: str) -> int | None:
    """Which build of the wanted lock a generation is, None where it is of another lock."""
    own = re.fullmatch(rf"\.{re.escape(ctx.knobs.env_name)}-{ctx.stack.lock_id}-{NUMBER}", name, re.ASCII)
    return int(own[1]) if own else None


def kept(ctx: Context) -> str | None:
    """A finished build of the wanted lock to go forward to: one that an undo, or another stack, has left aside whole.

    Never one that is older than what runs, or than what somebody broke: that was left because it was wrong.
    """
    now = current(ctx)
    passed = [number for g in generations(ctx)
              if (number := _number(ctx, g.name)) is not None and (g is now or (g.complete and g.gone))]
    found = {number: g.name for g in generations(ctx)
             if g.complete and not g.gone and (number := _number(ctx, g.name)) is not None
             and number > max(passed, default=0)}
    return found[max(found)] if found else _grown_aside(ctx)


def _grown_aside(ctx: Context) -> str | None:
    """One left aside by another stack that grew into the wanted lock in place, and still has the name of an older one.
    None where that lock has a build of its own, or where what runs is of it: any other was left for being wrong."""
    now, wanted = current(ctx), ctx.stack.lock_sha256
    if env_record(ctx).lock_sha256 == wanted or any(_number(ctx, g.name) is not None for g in generations(ctx)):
        return None
    grown = [g.name for g in generations(ctx) if g.complete and not g.gone and g is not now
             and g.records.env and g.records.env.lock_sha256 == wanted]
    return max(grown, default=None)


def next_generation(ctx: Context) -> str:
    """The directory to build in: a finished one that was left aside, an unfinished one, else the next number."""
    if aside := kept(ctx):
        return aside
    now = current(ctx)
    same = {number: g for g in generations(ctx) if (number := _number(ctx, g.name)) is not None}
    unfinished = [g.name for _, g in sorted(same.items()) if not g.complete and g is not now]
    if unfinished:
        return unfinished[-1]
    return f".{ctx.knobs.env_name}-{ctx.stack.lock_id}-{1 + max(same, default=0)}"


def step(ctx: Context, before: Sequence[Step]) -> Step:
    """What is to be done about the env, by how far it is from its lock."""
    env, title = ctx.state.env, f"Env {ctx.knobs.env_name}"
    wanted_count = len(ctx.stack.requirements(ctx.knobs.python))
    wanted = f"{ctx.stack.name}: {wanted_count} packages"
    if env is None:
        return _build(ctx, title, "none", wanted, Action.ADD,
                      f"lock {ctx.stack.lock_id}, Python {ctx.knobs.python}{_chosen(ctx)}")
    wrong, torch_wrong = diagnosis.packages(ctx), diagnosis.torch_build(ctx)
    generation = current(ctx)
    now = f"{len(env.packages)} packages"
    if env.gone or not env.python:
        return _build(ctx, title, env.gone or "no Python in it", wanted, Action.CHANGE,
                      f"its Python isn't whole: a new env is built beside it; {_old(ctx)}", afresh=bool(env.torn))
    if env.python and not env.python.startswith(f"{ctx.knobs.python}."):
        return _build(ctx, title, f"Python {env.python}", f"Python {ctx.knobs.python}", Action.CHANGE,
                      f"another Python needs a new env; {_old(ctx)}")
    if generation and _number(ctx, generation.name) is None and not _grown(ctx, wrong):
        lock = generation.name.rpartition("-")[0].rpartition("-")[2]
        return _build(ctx, title, f"lock {lock}", f"lock {ctx.stack.lock_id}", Action.CHANGE,
                      f"the lock of stack {ctx.stack.name} is another{_chosen(ctx)}; {_old(ctx)}")
    failed = failed_checks(ctx)
    if torch_wrong or failed:
        problems = (*([torch_wrong] if torch_wrong else []), *failed, *diagnosis.named(ctx, wrong))
        return _build(ctx, title, now, wanted, Action.CHANGE, f"built beside; {_old(ctx)}", problems,
                      afresh=bool(failed or env.torn))
    if not wrong and generation and not generation.complete:
        return Step(title, "no record of its build", wanted, Action.CHANGE, "tested again, then recorded",
                    payload=Build(generation.name, kept=True, afresh=False))
    if not wrong:
        adopted = "" if generation else " (adopted as it is)"
        return Step(title, f"{wanted_count} packages", wanted, Action.NONE,
                    f"all packages are as in lock {ctx.stack.lock_id}{adopted}", won=_won(ctx, wanted_count))
    return _differs(ctx, title, wanted, env, wrong)


def _differs(ctx: Context, title: str, wanted: str, env: Env,
             wrong: Mapping[str, tuple[str | None, str]]) -> Step:
    """The step that mends what differs from the lock, or builds an env beside."""
    few = len(wrong) <= NAMED and not env.duplicates
    now, why = f"{len(env.packages)} packages", f"{len(wrong)} packages differ from the lock"
    if few:
        why = ", ".join(diagnosis.change(ctx, name, *wrong[name]) for name in sorted(wrong))
    problems = () if few else diagnosis.named(ctx, wrong)
    if current(ctx) is None or diagnosis.rebuilds(ctx, wrong):
        return _build(ctx, title, now, wanted, Action.CHANGE, f"{why}: built beside, {_old(ctx)}", problems,
                      afresh=bool(env.torn))
    return Step(title, now, wanted, Action.CHANGE, why, problems=problems,
                bytes=ctx.stack.bytes_for(wrong, ctx.knobs.python),
                payload=Mend(tuple(sorted(wrong)), env.path, bool(env.torn)), fetches=("pip_index",),
                packages=tuple(sorted(wrong)))


def _won(ctx: Context, count: int) -> str:
    """`stack guide: 137 packages, Python 3.10, by uv from default`."""
    made = env_record(ctx)
    by = f", by {made.installer} from {made.source}" if made.installer and made.source else ""
    return f"stack {ctx.stack.name}: {count} packages, Python {ctx.knobs.python}{by}"


def theirs(ctx: Context) -> str | None:
    """The name under which an env of the user's own goes on where ours takes its place; None where there is none, or
    no such name. As long as its own: so each file that says where the env is can be told, a compiled one too."""
    env, taken = ctx.state.env, {name for row in ctx.state.conda for name in row.envs}
    if env is None or env.target or env.path.rpartition("/")[0] != envs_dir(ctx):
        return None
    return next((name for name in aside_names(ctx.knobs.env_name) if name not in taken), None)


def _old(ctx: Context) -> str:
    """What becomes of the env that is there."""
    name = theirs(ctx)
    return f"your own env goes on as {name}, and `rig undo` brings it back" if name else "the old env is kept"


def _grown(ctx: Context, wrong: Mapping[str, tuple[str | None, str]]) -> bool:
    """Whether the env is of an older lock of this very stack, and today's only adds packages, or moves few that are
    mended in place: a release that adds one costs no new env."""
    little = len(wrong) <= NAMED or all(now is None for now, _ in wrong.values())
    return env_record(ctx).stack == ctx.stack.name and little and not diagnosis.rebuilds(ctx, wrong)


def _chosen(ctx: Context) -> str:
    """Why it is this stack, where `model` settled it."""
    said = choice.why(ctx.knobs)
    return f"; {said}" if said else ""


def _build(ctx: Context, title: str, now: str, wanted: str, action: Action, why: str,
           problems: tuple[str, ...] = (), afresh: bool = False) -> Step:
    """The step that builds an env beside, or links one again that was left aside whole."""
    aside = kept(ctx)
    fetched = 0 if aside else ctx.stack.bytes_for(ctx.stack.requirements(ctx.knobs.python), ctx.knobs.python)
    return Step(title, now, wanted, action, f"{why}; {aside} is complete: tested again, then linked" if aside
                else why, bytes=fetched, problems=problems,
                payload=Build(next_generation(ctx), bool(aside), afresh, theirs(ctx) or ""),
                fetches=() if aside else ("pip_index", "conda_channel", "huggingface"),
                packages=() if aside else tuple(ctx.stack.requirements(ctx.knobs.python)),
                disk=() if aside else ((envs_dir(ctx), ctx.stack.disk_mib),))


def refusals(ctx: Context, steps: Sequence[Step]) -> list[Refusal]:
    """Too little disk for an env that must be built; a path too long; an env in its place that can't step aside."""
    builds = [step.payload for step in steps if isinstance(step.payload, Build)]
    if not builds:
        return []
    return _in_the_way(ctx) + _too_long(ctx, builds[0]) + ([] if builds[0].kept else _room(ctx))


def _in_the_way(ctx: Context) -> list[Refusal]:
    """A folder of the user's own at the env's name for which no name is found under which it would go on."""
    env = ctx.state.env
    if env is None or env.target or env.path.rpartition("/")[0] != envs_dir(ctx) or theirs(ctx):
        return []
    return [Refusal(f"{env.path} is an env of your own, and no name of the same length is free under which it would "
                    "go on",
                    f"give it another name (`conda rename -n {ctx.knobs.env_name} NAME`), or ours: env_name=NAME")]


def _too_long(ctx: Context, made: Build) -> list[Refusal]:
    folder = f"{envs_dir(ctx)}/{made.generation}"
    if fits_shebang(ctx, folder, ctx.knobs.python):
        return []
    return [Refusal(f"{folder} is too long: programs there couldn't name their Python in {ctx.rules.shebang} "
                    "characters", "set data_dir or conda_prefix to a shorter path, or a shorter env_name")]


def _room(ctx: Context) -> list[Refusal]:
    place = envs_dir(ctx)
    disk, need = disk_at(ctx, place), ctx.stack.disk_mib
    if disk is None or disk.free_mib >= need:
        return []
    free = disk.free_mib
    roomy = [d.mount for d in ctx.machine.disks if d.free_mib >= need and usable(d)]
    remedy = f"set data_dir to a folder on {roomy[0]}" if roomy else f"free {gib(need - free)} there"
    return [Refusal(f"{disk.mount} has {gib(free)} free, and stack {ctx.stack.name} takes {gib(need)} at {place}",
                    remedy)]


def explain(ctx: Context) -> Parts:
    """The env that is there, and the lock that is wanted."""
    env, generation, torch = ctx.state.env, current(ctx), ctx.stack.torch
    facts = [fact("env", f"{env.path} → {env.target or 'a folder, not our link'}" if env else None,
                   "env.EnvPackages")]
    if env:
        build = env.torch
        facts += [fact("Python", env.python, "env.EnvPackages"),
                  fact("packages", len(env.packages), "env.EnvPackages (*.dist-info)"),
                  fact("torch's build", f"{build.version}, CUDA {build.cuda or 'none'}" if build else None,
                        "env.EnvPackages (torch/version.py)")]
        facts += [fact("wrong", line, "env.EnvPackages")
                  for line in diagnosis.named(ctx, diagnosis.packages(ctx))]
    if generation:
        facts.append(fact("env before it", env_record(ctx).previous, "probe.HostState (.rig/env.json)"))
    rules = [Rule(f"stack {ctx.stack.name}: {len(ctx.stack.requirements(ctx.knobs.python))} packages with hashes, "
                  f"lock {ctx.stack.lock_id}", str(ctx.stack.lock.name if ctx.stack.lock else "no lock"))]
    if torch:
        rules.append(Rule(f"torch {torch.release} for CUDA {torch.cuda}, code for {', '.join(torch.archs)}",
                          torch.source))
    rules += [Rule(f"{name} {pin.version}", pin.source) for name, pin in ctx.stack.pins.items()]
    rules.append(Rule(f"{', '.join(ctx.stack.rebuild)} wrong, or a broken import: built beside; else mended in place",
                      OURS))
    return facts, rules


PLANNER = Planner(step, explain, knobs=("model", "stack", "python", "env_name"), refusals=refusals, needs=("conda",))
