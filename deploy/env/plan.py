"""Conda and the env: adopt, add, mend in place, or build beside and flip (DESIGN rule 9). Pure."""

from __future__ import annotations

from dataclasses import dataclass

from qwen_rig.deploy.env import diagnosis
from qwen_rig.facts.records import EnvRecord, Records
from qwen_rig.facts.state import Conda, Generation
from qwen_rig.plan.context import Context, gib
from qwen_rig.plan.model import Action, Payload, Refusal, Step
from qwen_rig.plan.place import data_folder, disk_at, usable

NAMED = 3  # wrong packages that the step itself names; more stand below it, a line each


@dataclass(frozen=True)
class CondaPayload(Payload):
    """Where Miniforge goes, or the adopted conda is."""

    prefix: str


@dataclass(frozen=True)
class Build(Payload):
    """An env built beside: the name of its folder; whether it is `kept`, left aside whole and only linked again; and
    whether it is filled `afresh`, past the installer's cache (uv links files out of it into envs: who edits one in
    place spoils both)."""

    generation: str
    kept: bool
    afresh: bool

    @property
    def mode(self) -> str:
        return "kept" if self.kept else "build"


@dataclass(frozen=True)
class Mend(Payload):
    """Single packages put right in the env at `path`."""

    names: tuple[str, ...]
    path: str

    @property
    def mode(self) -> str:
        return "mend"


def conda(ctx: Context) -> Conda | None:
    """The conda to use: the one the knob names, else the first sound one; None where one must be installed."""
    for found in ctx.state.conda:
        if ctx.knobs.conda_prefix in (None, found.prefix) and found.sound:
            return found
    return None


def prefix(ctx: Context) -> str:
    """Where that conda is, or will be."""
    found = conda(ctx)
    home = data_folder(ctx) or ctx.machine.user.home
    return found.prefix if found else ctx.knobs.conda_prefix or f"{home}/miniforge3"


def envs_dir(ctx: Context) -> str:
    """Where the env goes: to the data disk where one is used; else beside the others, or under the user's own
    ~/.conda where conda isn't ours to write.
    """
    if folder := data_folder(ctx):
        return f"{folder}/envs"
    found = conda(ctx)
    if found and not found.writable:
        return f"{ctx.machine.user.home}/.conda/envs"
    return f"{prefix(ctx)}/envs"


def current(ctx: Context) -> Generation | None:
    """The generation that the env's link points at, or None."""
    env = ctx.state.env
    if not env or not env.target:
        return None
    name = env.target.rstrip("/").rpartition("/")[2]
    return next((g for g in ctx.state.generations if g.name == name), None)


def holder(ctx: Context) -> Generation | None:
    """Where the env's records lie: its generation, or an env that somebody else made and that was adopted as it is."""
    env = ctx.state.env
    if not env or env.target:
        return current(ctx)
    return next((g for g in ctx.state.generations if g.path == env.path), None)


def records(ctx: Context) -> Records:
    """The records of the env; each is None where there is none."""
    generation = holder(ctx)
    return generation.records if generation else Records()


def env_record(ctx: Context) -> EnvRecord:
    """The record of the env's build, with nothing told where there is none."""
    return records(ctx).env or EnvRecord()


def _number(ctx: Context, name: str) -> int | None:
    """Which build of the wanted lock a generation is, None where it is of another lock."""
    stem, digits = f".{ctx.knobs.env_name}-{ctx.stack.lock_id}-", name.rpartition("-")[2]
    return int(digits) if name.startswith(stem) and digits.isdigit() else None


def kept(ctx: Context) -> str | None:
    """A finished build of the wanted lock to go forward to: one that an undo, or another stack, has left aside.

    Never one that is older than what runs: that was left because it was wrong.
    """
    now = current(ctx)
    running = _number(ctx, now.name) if now else None
    found = {number: g.name for g in ctx.state.generations
             if g.complete and (number := _number(ctx, g.name)) is not None and number > (running or 0)}
    return found[max(found)] if found else None


def next_generation(ctx: Context) -> str:
    """The directory to build in: a finished one that was left aside, an unfinished one, else the next number."""
    if aside := kept(ctx):
        return aside
    same = {number: g for g in ctx.state.generations if (number := _number(ctx, g.name)) is not None}
    unfinished = [g.name for _, g in sorted(same.items()) if not g.complete]
    if unfinished:
        return unfinished[-1]
    return f".{ctx.knobs.env_name}-{ctx.stack.lock_id}-{1 + max(same, default=0)}"


def is_filled(env: Step) -> bool:
    """Whether this step builds an env of what is fetched; one that was left aside whole is only linked again."""
    return isinstance(env.payload, Build) and not env.payload.kept


def is_relinked(env: Step) -> bool:
    """Whether this step only links an env again that was left aside whole: nothing is fetched."""
    return isinstance(env.payload, Build) and env.payload.kept


def steps(ctx: Context) -> list[Step]:
    """Conda, then the env with its packages."""
    return [_conda(ctx), _env(ctx)]


def _conda(ctx: Context) -> Step:
    found = conda(ctx)
    if found:
        what = f"{found.kind} {found.version or ''}".strip()
        return Step("conda", "Conda", what, what, Action.NONE, f"adopted: {found.prefix}",
                    payload=CondaPayload(prefix(ctx)))
    broken = [row.prefix for row in ctx.state.conda]
    why = f"{broken[0]} is broken; it is left alone" if broken else "none on this host"
    release = ctx.rules.miniforge
    version = ctx.knobs.source_miniforge_version or release.version
    return Step("conda", "Conda", "broken" if broken else "none", f"Miniforge {version}", Action.ADD, why,
                bytes=release.bytes if version == release.version else None,
                payload=CondaPayload(_free_prefix(ctx, broken)))


def _free_prefix(ctx: Context, broken: list[str]) -> str:
    """Our own prefix, or a name beside it where a broken conda sits there (it isn't ours to remove)."""
    wanted = prefix(ctx)
    return f"{wanted}-qwen-rig" if wanted in broken else wanted


def _env(ctx: Context) -> Step:
    env, title = ctx.state.env, f"Env {ctx.knobs.env_name}"
    wanted_count = len(ctx.stack.requirements(ctx.knobs.python))
    wanted = f"{ctx.stack.name}: {wanted_count} packages"
    if env is None:
        return _build(ctx, title, "none", wanted, Action.ADD, f"lock {ctx.stack.lock_id}, Python {ctx.knobs.python}")
    wrong, torch_wrong = diagnosis.packages(ctx), diagnosis.torch_build(ctx)
    generation = current(ctx)
    now = f"{len(env.packages)} packages"
    if env.python and not env.python.startswith(f"{ctx.knobs.python}."):
        return _build(ctx, title, f"Python {env.python}", f"Python {ctx.knobs.python}", Action.CHANGE,
                      "another Python needs another env; the old one is kept")
    if generation and _number(ctx, generation.name) is None:
        lock = generation.name.rpartition("-")[0].rpartition("-")[2]
        return _build(ctx, title, f"lock {lock}", f"lock {ctx.stack.lock_id}", Action.CHANGE,
                      f"the lock of stack {ctx.stack.name} is another; the old env is kept")
    failed = _failed(ctx)
    if torch_wrong or failed:
        problems = (*([torch_wrong] if torch_wrong else []), *failed, *diagnosis.named(ctx, wrong))
        return _build(ctx, title, now, wanted, Action.CHANGE, "built beside; the old env is kept", problems,
                      afresh=bool(failed))
    if not wrong:
        adopted = "" if generation else " (adopted as it is)"
        return Step("env", title, f"{wanted_count} packages", wanted, Action.NONE,
                    f"all as in lock {ctx.stack.lock_id}{adopted}")
    few = len(wrong) <= NAMED and not env.duplicates
    why = ", ".join(f"{name} {old or 'absent'} → {new}" for name, (old, new) in sorted(wrong.items())) if few \
        else f"{len(wrong)} packages aren't the lock's"
    problems = () if few else diagnosis.named(ctx, wrong)
    if generation is None or diagnosis.rebuilds(ctx, wrong):
        return _build(ctx, title, now, wanted, Action.CHANGE, f"{why}: built beside, the old env is kept", problems)
    return Step("env", title, now, wanted, Action.CHANGE, why, problems=problems,
                bytes=ctx.stack.bytes_for(wrong, ctx.knobs.python),
                payload=Mend(tuple(sorted(wrong)), env.path))


def _failed(ctx: Context) -> list[str]:
    """What the last verification said can't be done in the env, while that verification still stands."""
    from qwen_rig.deploy.training.plan import fingerprint  # it fingerprints what this module reads

    verified = records(ctx).verify
    return diagnosis.proofs(ctx, verified) if verified and verified.fingerprint == fingerprint(ctx) else []


def _build(ctx: Context, title: str, now: str, wanted: str, action: Action, why: str,
           problems: tuple[str, ...] = (), afresh: bool = False) -> Step:
    """The step that builds an env beside, or links one again that was left aside whole."""
    aside = kept(ctx)
    fetched = 0 if aside else ctx.stack.bytes_for(ctx.stack.requirements(ctx.knobs.python), ctx.knobs.python)
    return Step("env", title, now, wanted, action, f"{why}; {aside} is whole: proved again, then linked" if aside
                else why, bytes=fetched, problems=problems,
                payload=Build(next_generation(ctx), bool(aside), afresh))


def refusals(ctx: Context, env: Step) -> list[Refusal]:
    """Too little disk for an env that must be built."""
    if not is_filled(env):
        return []
    place = envs_dir(ctx)
    disk, need = disk_at(ctx, place), ctx.stack.disk_mib
    if disk is None or disk.free_mib >= need:
        return []
    free = disk.free_mib
    roomy = [d.mount for d in ctx.machine.disks if d.free_mib >= need and usable(d)]
    remedy = f"set data_dir to a folder on {roomy[0]}" if roomy else f"free {gib(need - free)} there"
    return [Refusal(f"{disk.mount} has {gib(free)} free, and stack {ctx.stack.name} takes {gib(need)} at {place}",
                    remedy)]
