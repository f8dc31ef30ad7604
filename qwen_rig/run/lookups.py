"""What the controller itself looks up before any host is touched: whether each wanted file can be fetched."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from threading import Lock

from qwen_rig import bundle as bundles
from qwen_rig.catalog.limits import load_limits
from qwen_rig.catalog.lock import Requirement
from qwen_rig.catalog.sources import load_sources
from qwen_rig.network import preflight
from qwen_rig.network.web import Unreachable, bare, get, private_to_host
from qwen_rig.plan import Context, Plan, Refusal
from qwen_rig.plan.place import repository_key

from .network import apt_needed, index_of, keyring, miniforge_url, wanted

NAMED = 4  # missing files that a card names


class Lookups:
    """The questions of one run to indexes and mirrors, each asked once."""

    def __init__(self) -> None:
        self._asking = Lock()  # hosts are prepared side by side: the first asks, the others find its answer
        self._looks: dict[str, preflight.Look] = {}
        self._heads: dict[str, int | None] = {}

    def checked(self, ctx: Context, plan: Plan) -> Plan:
        """The plan, with what the look-up found against it. Nothing is asked where nothing is fetched."""
        if plan.refusals or not plan.steps:
            return plan
        (refused, said), (apart_refused, apart_said) = self._packages(ctx, plan), self._torch_source(ctx, plan)
        refused, said = refused + apart_refused + self._miniforge(ctx, plan) + _keyring(ctx, plan), said + apart_said
        if ctx.knobs.bundle and apt_needed(plan):
            said.append("apt's packages come through this machine, from the archives of source_apt: it must reach them")
        return replace(plan, refusals=plan.refusals + tuple(refused), caveats=plan.caveats + tuple(said))

    def _look(self, index: str, packages: Mapping[str, Requirement], python: str, own: bool) -> preflight.Look:
        """What an index has of these; asked once in a run. own: a knob names it."""
        key = f"{preflight.key(index, packages, python)} {own}"
        with self._asking:
            if key not in self._looks:
                self._looks[key] = preflight.look(index, packages, python, own)
        return self._looks[key]

    def _packages(self, ctx: Context, plan: Plan) -> tuple[list[Refusal], list[str]]:
        packages = wanted(ctx, plan)
        if not packages:
            return [], []
        if ctx.knobs.bundle:
            return _bundled(ctx, packages), []
        index = index_of(ctx)
        if index is None:
            return [], ["not checked whether every locked file can be fetched: this host's index isn't known here"]
        found = self._look(index, packages, ctx.knobs.python, index == ctx.knobs.source_pip_index)
        if found.unchecked:
            return [], [f"not checked whether every locked file can be fetched: {found.unchecked}"]
        if not found.missing:
            return [], []
        remedy = "take another source_pip_index"
        if preflight.OTHER_BYTES in found.missing.values():
            remedy += f"; where every index has these bytes, the lock is wrong: make the lock again ({ctx.stack.lock})"
        return [Refusal(_missing(found, packages, "locked files"), remedy)], []

    def _torch_source(self, ctx: Context, plan: Plan) -> tuple[list[Refusal], list[str]]:
        """The same for the packages that come from an index of their own: by hash, version or name, as far as known."""
        torch = ctx.stack.torch_source(ctx.knobs.source_torch_index, ctx.knobs.python)
        if torch is None or not plan.fetching("conda_channel"):
            return [], []
        names = ", ".join(torch.names)
        said = [f"{names} come from {bare(torch.index)}, not from the bundle: the host must reach that"] \
            if ctx.knobs.bundle else []
        found = self._look(torch.index, torch.packages, ctx.knobs.python,
                           torch.index == ctx.knobs.source_torch_index)
        if found.unchecked:
            return [], [*said, f"not checked whether {names} can be fetched: {found.unchecked}"]
        if not found.missing:
            return [], said
        only = ctx.stack.torch_index is not None and ctx.stack.torch_index.only
        return [Refusal(_missing(found, torch.packages, "packages"), "take another source_torch_index"
                        + (f", or another stack than {ctx.stack.name}" if only else ", or leave it out"))], said

    def _miniforge(self, ctx: Context, plan: Plan) -> list[Refusal]:
        if ctx.knobs.bundle or not plan.fetching("miniforge"):
            return []
        url = miniforge_url(ctx)
        if private_to_host(url):
            return []
        with self._asking:
            if url not in self._heads:
                try:
                    self._heads[url] = get(url, load_limits().lookup_seconds, head=True,
                                           own=ctx.knobs.source_miniforge).status
                except Unreachable:  # the host may well reach it
                    self._heads[url] = None
        if self._heads[url] in (None, 200):
            return []
        return [Refusal(f"there is no {url} ({self._heads[url]})",
                        "check source_miniforge and source_miniforge_version")]


def _missing(found: preflight.Look, packages: Mapping[str, Requirement], kind: str) -> str:
    named = [f"{name} {packages[name].version} ({why})".replace("  ", " ")
             for name, why in sorted(found.missing.items())]
    more = f" and {len(named) - NAMED} more" if len(named) > NAMED else ""
    return f"{len(named)} of {len(packages)} {kind} can't be fetched from {bare(found.index)}: " \
           f"{', '.join(named[:NAMED])}{more}"


def _bundled(ctx: Context, packages: Mapping[str, Requirement]) -> list[Refusal]:
    """What the bundle lacks for this host."""
    made = bundles.load(ctx.knobs.bundle or "")
    again = _again(ctx)
    if made.python != ctx.knobs.python:
        what = f"the bundle {made.folder} is for Python {made.python}, and {ctx.knobs.python} is wanted"
        return [Refusal(what, again)]
    built = ctx.stack.built(packages, ctx.knobs.python)
    tools = made.lacking(ctx.stack.build_requirements(ctx.knobs.python)) if built else []
    if lacking := [*made.lacking(packages), *tools]:
        more = f" and {len(lacking) - NAMED} more" if len(lacking) > NAMED else ""
        return [Refusal(f"the bundle {made.folder} lacks {', '.join(lacking[:NAMED])}{more}", again)]
    return []


def _keyring(ctx: Context, plan: Plan) -> list[Refusal]:
    if not ctx.knobs.bundle or not plan.fetching("nvidia_apt"):
        return []
    key = repository_key(ctx)
    if key is None:  # refused by the plan
        return []
    if any(has(key.fingerprint) for has in (load_sources().nvidia_apt.keyring, partial(keyring, ctx))):
        return []
    return [Refusal(f"the bundle {ctx.knobs.bundle} lacks the key {key.fingerprint} of NVIDIA's repository",
                    _again(ctx))]


def _again(ctx: Context) -> str:
    """The command that makes the bundle whole."""
    folder = bundles.load(ctx.knobs.bundle or "").folder
    return f"qwen-rig bundle {folder} --data stack={ctx.knobs.stack} --data python={ctx.knobs.python}"
