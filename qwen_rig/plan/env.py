"""Where conda and the env are on a host, or will be, and what the env's records say. Pure."""

from __future__ import annotations

import posixpath

from qwen_rig.facts.records import EnvRecord, Records
from qwen_rig.facts.state import Conda, Generation
from qwen_rig.plan.context import Context, version
from qwen_rig.plan.place import data_folder


def conda(ctx: Context) -> Conda | None:
    """The conda to use: the one the knob names, else the first sound one that isn't too old; None where one must be
    installed."""
    for found in ctx.state.conda:
        if ctx.knobs.conda_prefix in (None, found.prefix) and found.sound and not too_old(ctx, found):
            return found
    return None


def too_old(ctx: Context, found: Conda) -> bool:
    """Whether a conda is older than any that can make our env; one whose env is there already has nothing to make."""
    number, env = version(found.version), ctx.state.env
    holds = env is not None and not env.gone and env.path.startswith(f"{found.prefix}/envs/")
    return number is not None and number < ctx.rules.oldest_conda and not holds


def fits_shebang(ctx: Context, folder: str, python: str = "") -> bool:
    """Whether the programs of an env in that folder can start its Python by their first line."""
    return len(f"#!{folder}/bin/python{python}") <= ctx.rules.shebang


def prefix(ctx: Context) -> str:
    """Where that conda is, or will be."""
    found = conda(ctx)
    home = data_folder(ctx) or ctx.machine.user.home
    return found.prefix if found else ctx.knobs.conda_prefix or f"{home}/miniforge3"


def envs_dir(ctx: Context) -> str:
    """Where the env goes: to the data disk where one is used; where .condarc sends envs; else beside the others, or
    under the user's own ~/.conda where conda isn't ours to write.
    """
    if folder := data_folder(ctx):
        return f"{folder}/envs"
    env, theirs = ctx.state.env, ctx.state.condarc.envs_dirs  # where .condarc sends envs, conda looks first
    if env and (at := env.path.rpartition("/")[0]) in theirs:
        return at
    if theirs and not env and not ctx.knobs.conda_prefix:
        return theirs[0]
    found = conda(ctx)
    if found and not found.writable:
        return f"{ctx.machine.user.home}/.conda/envs"
    return f"{prefix(ctx)}/envs"


def known_as(ctx: Context) -> str:
    """The link by which conda finds the env by its name; empty where the env lies in a folder that conda looks in
    (those of .condarc, its own, the user's ~/.conda)."""
    found, own = conda(ctx), f"{prefix(ctx)}/envs"
    users = f"{ctx.machine.user.home}/.conda/envs"
    if envs_dir(ctx) in (own, users, *ctx.state.condarc.envs_dirs):
        return ""
    return f"{users if found and not found.writable else own}/{ctx.knobs.env_name}"


def aside_names(name: str) -> tuple[str, ...]:
    """Names as long as an env's own, for one that steps aside; none where the name is too short."""
    ends = (".old", *(f".ol{number}" for number in range(2, 10)))
    return tuple(name[:-len(end)] + end for end in ends) if len(name) > len(ends[0]) + 1 else ()


def generations(ctx: Context) -> list[Generation]:
    """The generations in the folder where the env goes: in another one (a broken conda's, say) the names repeat."""
    folder = envs_dir(ctx)
    return [g for g in ctx.state.generations if g.path.rpartition("/")[0] == folder]


def current(ctx: Context) -> Generation | None:
    """The generation that the env's link points at, or None."""
    env = ctx.state.env
    if not env or not env.target:
        return None
    path = posixpath.normpath(posixpath.join(env.path, "..", env.target))
    return next((g for g in ctx.state.generations if g.path == path), None)


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
