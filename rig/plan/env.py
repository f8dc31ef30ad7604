"""Conda and the env: adopt, add, mend in place, or build beside and flip (DESIGN rule 9). Pure."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatch
from typing import Any

from packaging.version import Version

from .context import Context, gib, version
from .model import Action, Refusal, Step
from .place import data_folder, disk_at, usable


def conda(ctx: Context) -> Mapping[str, Any] | None:
    """The conda to use: the one the knob names, else the first sound one; None where one must be installed."""
    for found in ctx.state["conda"]:
        if ctx.knobs.conda_prefix in (None, found["prefix"]) and found["sound"]:
            return found  # type: ignore[no-any-return]
    return None


def prefix(ctx: Context) -> str:
    """Where that conda is, or will be."""
    found = conda(ctx)
    home = data_folder(ctx) or ctx.machine["user"]["home"]
    return str(found["prefix"]) if found else ctx.knobs.conda_prefix or f"{home}/miniforge3"


def envs_dir(ctx: Context) -> str:
    """Where the env goes: to the data disk where one is used; else beside the others, or under the user's own
    ~/.conda where conda isn't ours to write.
    """
    if folder := data_folder(ctx):
        return f"{folder}/envs"
    found = conda(ctx)
    if found and not found["writable"]:
        return f"{ctx.machine['user']['home']}/.conda/envs"
    return f"{prefix(ctx)}/envs"


def current(ctx: Context) -> Mapping[str, Any] | None:
    """The generation that the env's link points at, or None."""
    env = ctx.state["env"]
    if not env or not env["target"]:
        return None
    name = str(env["target"]).rstrip("/").rpartition("/")[2]
    return next((g for g in ctx.state["generations"] if g["name"] == name), None)


def record(ctx: Context, kind: str) -> Mapping[str, Any]:
    """A record (env, flash_attn, verify, training) of the current generation; {} where there is none."""
    generation = current(ctx)
    found = generation["records"].get(kind) if generation else None
    return found if isinstance(found, dict) else {}


def drift(ctx: Context) -> dict[str, tuple[str | None, str]]:
    """What the env lacks or has in another version than the lock: name → (now, wanted)."""
    env = ctx.state["env"]
    wanted = ctx.stack.requirements(ctx.knobs.python)
    have = env["packages"] if env else {}
    twice = set(env["duplicates"]) if env else set()
    return {name: (have.get(name), requirement.version) for name, requirement in wanted.items()
            if name in twice or version(have.get(name)) is None
            or _public(have[name]) != _public(requirement.version)}


def _public(text: str) -> str:
    """A version without its local part: PyTorch's index says 2.8.0+cu128, PyPI's own build just 2.8.0."""
    return Version(text).public


def _torch_wrong(ctx: Context) -> str | None:
    """Why the torch that is there is the wrong build, or None. torch/version.py tells, not the label."""
    torch, env = ctx.stack.torch, ctx.state["env"]
    if torch is None or not env or "torch" not in env["packages"]:
        return None
    there = env["torch"]
    if not there or not there.get("cuda"):
        return "torch is a CPU build" if there else "torch/version.py can't be read"
    if there["cuda"] != torch.cuda:
        return f"torch is built for CUDA {there['cuda']}, wanted {torch.cuda}"
    return None


def next_generation(ctx: Context) -> str:
    """The directory to build in: an unfinished one of the same lock is resumed, else the next number."""
    stem = f".{ctx.knobs.env_name}-{ctx.stack.lock_id}-"
    same = [g for g in ctx.state["generations"] if g["name"].startswith(stem)]
    unfinished = [g for g in same if not g["complete"]]
    if unfinished:
        return str(unfinished[-1]["name"])
    return stem + str(1 + max((int(g["name"][len(stem):]) for g in same if g["name"][len(stem):].isdigit()),
                              default=0))


def steps(ctx: Context) -> list[Step]:
    """Conda, then the env with its packages."""
    return [_conda(ctx), _env(ctx)]


def _conda(ctx: Context) -> Step:
    found = conda(ctx)
    if found:
        what = f"{found['kind']} {found['version'] or ''}".strip()
        return Step("conda", "Conda", what, what, Action.NONE, f"adopted: {found['prefix']}",
                    data={"prefix": prefix(ctx)})
    broken = [row["prefix"] for row in ctx.state["conda"]]
    why = f"{broken[0]} is broken; it is left alone" if broken else "none on this host"
    release = ctx.rules.miniforge
    version = ctx.knobs.source_miniforge_version or release.version
    return Step("conda", "Conda", "broken" if broken else "none", f"Miniforge {version}", Action.ADD, why,
                bytes=release.bytes, data={"prefix": _free_prefix(ctx, broken)})


def _free_prefix(ctx: Context, broken: list[str]) -> str:
    """Our own prefix, or a name beside it where a broken conda sits there (it isn't ours to remove)."""
    wanted = prefix(ctx)
    return f"{wanted}-qwen-rig" if wanted in broken else wanted


def _env(ctx: Context) -> Step:
    env, title = ctx.state["env"], f"Env {ctx.knobs.env_name}"
    wanted_count = len(ctx.stack.requirements(ctx.knobs.python))
    wanted = f"{ctx.stack.name}: {wanted_count} packages"
    if env is None:
        return _build(ctx, title, "none", wanted, Action.ADD, f"lock {ctx.stack.lock_id}, Python {ctx.knobs.python}")
    wrong, torch_wrong = drift(ctx), _torch_wrong(ctx)
    generation = current(ctx)
    now = f"{len(env['packages'])} packages"
    if env["python"] and not env["python"].startswith(f"{ctx.knobs.python}."):
        return _build(ctx, title, f"Python {env['python']}", f"Python {ctx.knobs.python}", Action.CHANGE,
                      "another Python needs another env; the old one is kept")
    if generation and not generation["name"].startswith(f".{ctx.knobs.env_name}-{ctx.stack.lock_id}-"):
        return _build(ctx, title, f"lock {generation['name'].split('-')[-2]}", f"lock {ctx.stack.lock_id}",
                      Action.CHANGE, f"the lock of stack {ctx.stack.name} is another; the old env is kept")
    if torch_wrong:
        return _build(ctx, title, torch_wrong, wanted, Action.CHANGE, "built beside; the old env is kept")
    if broken := _broken_import(ctx):
        return _build(ctx, title, "import fails", wanted, Action.CHANGE, broken)
    if not wrong:
        adopted = "" if generation else " (adopted as it is)"
        return Step("env", title, f"{wanted_count} packages", wanted, Action.NONE,
                    f"all as in lock {ctx.stack.lock_id}{adopted}")
    named = ", ".join(f"{name} {old or 'absent'} → {new}" for name, (old, new) in sorted(wrong.items())[:3])
    more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
    if generation is None or any(fnmatch(name, pattern) for name in wrong for pattern in ctx.stack.rebuild):
        return _build(ctx, title, now, wanted, Action.CHANGE, f"{named}{more}: built beside, the old env is kept")
    return Step("env", title, now, wanted, Action.CHANGE, f"{named}{more}",
                bytes=ctx.stack.bytes_for(wrong, ctx.knobs.python),
                data={"mode": "mend", "names": sorted(wrong), "path": env["path"]})


def _broken_import(ctx: Context) -> str | None:
    """What the last verification said of the import gate, while that verification still stands."""
    from .train import fingerprint  # it fingerprints what this module reads

    verified = record(ctx, "verify")
    if verified.get("fingerprint") != fingerprint(ctx):
        return None
    failed = next((c for c in verified.get("checks", [])
                   if c.get("name") == "import" and c.get("status") == "fail"), None)
    return f"{ctx.stack.import_gate!r} failed when last verified" if failed else None


def _build(ctx: Context, title: str, now: str, wanted: str, action: Action, why: str) -> Step:
    return Step("env", title, now, wanted, action, why,
                bytes=ctx.stack.bytes_for(ctx.stack.requirements(ctx.knobs.python), ctx.knobs.python),
                data={"mode": "build", "generation": next_generation(ctx)})


def refusals(ctx: Context, env: Step) -> list[Refusal]:
    """Too little disk for an env that must be built."""
    if env.data.get("mode") != "build":
        return []
    place = envs_dir(ctx)
    disk, need = disk_at(ctx, place), ctx.stack.disk_mib
    if disk is None or disk["free_mib"] >= need:
        return []
    free = disk["free_mib"]
    roomy = [d["mount"] for d in ctx.machine["disks"] if d["free_mib"] >= need and usable(d)]
    remedy = f"set data_dir to a folder on {roomy[0]}" if roomy else f"free {gib(need - free)} there"
    return [Refusal(f"{disk['mount']} has {gib(free)} free, and stack {ctx.stack.name} takes {gib(need)} at {place}",
                    remedy)]
