"""What qwen-rig has put on a host, as things to remove: which paths, as which user, why. Pure; whether each is there is
asked on the host (host/remove.sh)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from posixpath import dirname

from qwen_rig.facts.state import Conda
from qwen_rig.frozen import frozen
from qwen_rig.managed import KEYRING, PREFERENCES, REPOSITORY, guard
from qwen_rig.plan.context import Context
from qwen_rig.plan.env import envs_dir
from qwen_rig.plan.place import data_folder

KINDS = ("tree", "file", "ours", "empty", "line")


@frozen
class Thing:
    """One thing. `kind`: as remove.sh has it; `root`: root's; `kib`: how much it takes, where it was looked at."""

    kind: str
    path: str
    why: str
    root: bool = False
    kib: int = 0


def prefixes(ctx: Context) -> list[str]:
    """Where our conda may be: the one that holds the env, and the one on the data disk."""
    placed = data_folder(ctx)
    ours = (dirname(envs_dir(ctx)), f"{placed}/miniforge3" if placed else None)
    return [each.prefix for each in ctx.state.conda if each.prefix in ours]


def things(ctx: Context, runs: bool, marked: Collection[str]) -> list[Thing]:
    """All that may be there, in the order in which it goes. `runs`: the training runs and their data too; `marked`: the
    prefixes of condas that go too, as they are marked as ours."""
    home, uid = ctx.machine.user.home.rstrip("/"), ctx.machine.user.uid
    envs, name = envs_dir(ctx), ctx.knobs.env_name
    link, placed = f"{envs}/{name}", data_folder(ctx)
    ours = [each.path for each in ctx.state.generations]
    env = ctx.state.env
    found = [Thing("line", link, "the env in conda's list")]
    if env is None or env.target or not env.path:
        found.append(Thing("file", link, "the env's link"))
    found += [Thing("tree", path, "an env that was built here") for path in ours]
    found += [Thing("file", f"{envs}/.{name}.lock", "the env's lock")]
    found += [Thing("tree", f"{home}/.cache/{each}", "a cache: its files can be fetched again")
              for each in ("qwen-rig", "uv", "pip")]
    found += [Thing("tree", each.prefix, "conda, which was installed for the env") for each in ctx.state.conda
              if each.prefix in marked and not others(ctx, each)]
    if runs:
        found += [Thing("tree", f"{root}/{each}", what) for root in dict.fromkeys((f"{home}/qwen-rig", placed)) if root
                  for each, what in (("runs", "training runs with their checkpoints"), ("data", "data that were sent"))]
    if placed:
        found += [Thing("tree", f"{placed}/{each}", "caches and models on the data disk")
                  for each in ("cache", "pkgs", "tmp", "huggingface")]
        found += [Thing("empty", each, "") for each in (f"{placed}/envs", placed)]
    if uid != 0:
        found.append(Thing("tree", f"{home}/.local/state/qwen-rig", "the jobs' logs"))
    found += [Thing("empty", f"{home}/{each}", "") for each in ("qwen-rig", ".conda", ".cache")]
    return found + _roots(ctx)


def others(ctx: Context, conda: Conda) -> list[str]:
    """The envs in a conda that aren't ours."""
    return sorted(set(conda.envs) - {"base", ctx.knobs.env_name})


def _roots(ctx: Context) -> list[Thing]:
    """Root's. NVIDIA's repository stays with the packages that came from there: without it they get no fixes."""
    if not ctx.root:
        return []
    found = [Thing("ours", path, "the driver's guard", True) for path in guard(True)]
    if not any("nvidia" in name or name.startswith("cuda") for name in ctx.state.dpkg):
        found += [Thing("ours", path, "NVIDIA's repository", True) for path in (REPOSITORY, PREFERENCES)]
        found.append(Thing("file", KEYRING, "NVIDIA's key", True))
    return [*found, Thing("tree", "/run/qwen-rig", "who uses the GPU", True),
            Thing("tree", "/var/lib/qwen-rig", "root's jobs and their logs", True)]


def stays(ctx: Context, runs: bool, marked: Collection[str]) -> list[str]:
    """What is left, in words."""
    said = []
    if any("nvidia" in name for name in ctx.state.dpkg):
        said.append("the driver, with NVIDIA's repository: apt-get purge '^nvidia-' removes it")
    for each in ctx.state.conda:
        if each.prefix not in marked:
            said.append(f"conda in {each.prefix}")
        elif names := others(ctx, each):
            said.append(f"conda in {each.prefix}, for its envs {', '.join(names[:5])}")
    if not runs:
        said.append("training runs and their data")
    return [*said, "packages of the system's (compilers, CUDA toolkit)", "models in ~/.cache/huggingface"]


def read(output: str, asked: Sequence[Thing]) -> tuple[list[Thing], list[str]]:
    """(things that remove.sh tells of, jobs that are at work); what wasn't asked about isn't told."""
    known = {(each.kind, each.path): each for each in asked}
    found, busy = [], []
    for line in output.splitlines()[:10_000]:
        kind, _, rest = line.partition(" ")
        kib, _, path = rest.partition(" ")
        if kind == "busy":
            busy.append(path[:80])
        elif (thing := known.get((kind, path))) and kib.isdecimal() and len(kib) < 14:
            found.append(Thing(thing.kind, path, thing.why, thing.root, int(kib)))
    return found, busy


def words(asked: Sequence[Thing]) -> list[str]:
    """The same as remove.sh takes them."""
    return [word for each in asked for word in (each.kind, each.path)]
