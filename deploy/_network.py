"""The network's part of a run, before anything is touched: the controller asks the index for every locked file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from threading import Lock

from pyinfra.api.host import Host

from rig.lock import Requirement
from rig.network import preflight
from rig.network.limits import load_limits
from rig.network.web import Unreachable, bare, get, private_to_host
from rig.plan import Context, Plan, Refusal

from . import _session

_asking = Lock()  # hosts are prepared side by side: the first asks, the others find its answer
_looks: dict[tuple[str, str, str], preflight.Look] = {}
_heads: dict[str, int | None] = {}
NAMED = 4  # missing files that a card names


def checked(host: Host, plan: Plan) -> Plan:
    """The plan, with what the controller's look-up found against it. Nothing is asked where nothing is fetched."""
    if plan.refusals or not plan.steps:
        return plan
    ctx = _session.context(host)
    refused, said = _packages(ctx, plan)
    refused += _miniforge(ctx, plan)
    return replace(plan, refusals=plan.refusals + tuple(refused), caveats=plan.caveats + tuple(said))


def index_of(ctx: Context) -> str | None:
    """The package index that this host would use by itself; None where it can't be told, or holds a password."""
    configured = (ctx.machine.get("network") or {}).get("pip_index")
    index = ctx.knobs.source_pip_index or configured or preflight.default_index()
    return None if index is None or "@" in index else index


def wanted(ctx: Context, plan: Plan) -> Mapping[str, Requirement]:
    """The locked packages that this plan would fetch."""
    step = plan.step("env")
    if not step.action.changes or step.data.get("kept"):  # an env that was left aside whole: nothing is fetched
        return {}
    apart = ctx.stack.apart(ctx.knobs.source_torch_index, ctx.knobs.python)  # torch from an index of its own
    locked = {name: requirement for name, requirement in ctx.stack.requirements(ctx.knobs.python).items()
              if apart is None or name not in apart.names}
    names = step.data["names"] if step.data.get("mode") == "mend" else locked
    return {name: locked[name] for name in names if name in locked}


def _packages(ctx: Context, plan: Plan) -> tuple[list[Refusal], list[str]]:
    packages = wanted(ctx, plan)
    if not packages:
        return [], []
    index = index_of(ctx)
    if index is None:
        return [], ["not checked whether every locked file can be had: this host's index isn't known here"]
    key = (index, ctx.knobs.python, " ".join(sorted(packages)) + ctx.stack.lock_id)
    with _asking:
        if key not in _looks:
            _looks[key] = preflight.look(index, packages, ctx.knobs.python)
    found = _looks[key]
    if found.unchecked:
        return [], [f"not checked whether every locked file can be had: {found.unchecked}"]
    if not found.missing:
        return [], []
    named = [f"{name} {packages[name].version} ({why})" for name, why in sorted(found.missing.items())]
    more = f" and {len(named) - NAMED} more" if len(named) > NAMED else ""
    return [Refusal(f"{len(named)} of {len(packages)} locked files can't be had from {bare(index)}: "
                    f"{', '.join(named[:NAMED])}{more}", "take another source_pip_index")], []


def _miniforge(ctx: Context, plan: Plan) -> list[Refusal]:
    if not plan.step_changes("conda"):
        return []
    url = miniforge_url(ctx)
    if private_to_host(url):
        return []
    with _asking:
        if url not in _heads:
            try:
                _heads[url] = get(url, load_limits().lookup_seconds, head=True).status
            except Unreachable:  # the host may well reach it
                _heads[url] = None
    if _heads[url] in (None, 200):
        return []
    return [Refusal(f"there is no {url} ({_heads[url]})", "check source_miniforge and source_miniforge_version")]


def miniforge_url(ctx: Context) -> str:
    """The conda installer's address."""
    release = _session.rules().miniforge
    version = ctx.knobs.source_miniforge_version or release.version
    return f"{(ctx.knobs.source_miniforge or release.url).rstrip('/')}/Miniforge3-{version}-Linux-x86_64.sh"
