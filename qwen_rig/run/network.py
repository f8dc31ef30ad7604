"""The network's part of a run: what the controller asks the index before anything is touched, and each host's route."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from threading import Lock
from urllib.parse import quote

from pyinfra.api.host import Host
from pyinfra.context import ctx_state

from qwen_rig import bundle as bundles
from qwen_rig.catalog.limits import load_limits
from qwen_rig.catalog.lock import Requirement
from qwen_rig.catalog.sources import load_sources
from qwen_rig.deploy.driver.plan import repository_at
from qwen_rig.deploy.env.plan import Mend, is_filled, is_relinked
from qwen_rig.errors import RigError
from qwen_rig.flash import Candidate
from qwen_rig.managed import repository_folder
from qwen_rig.network import preflight
from qwen_rig.network.archive import PLACE, Forbidden
from qwen_rig.network.route import Route, Source, candidates, from_bundle, from_github, unmeasured
from qwen_rig.network.web import Unreachable, bare, get, private_to_host
from qwen_rig.plan import Context, Plan, Refusal
from qwen_rig.run import session as _session
from qwen_rig.run import tunnel as _forward

_asking = Lock()  # hosts are prepared side by side: the first asks, the others find its answer
_looks: dict[str, preflight.Look] = {}
_routes: dict[str, Route] = {}
_heads: dict[str, int | None] = {}
NAMED = 4  # missing files that a card names
APT = ("repository", "driver", "compilers", "toolkit")  # the steps that apt fetches for


def checked(host: Host, plan: Plan) -> Plan:
    """The plan, with what the controller's look-up found against it. Nothing is asked where nothing is fetched."""
    if plan.refusals or not plan.steps:
        return plan
    ctx = _session.context(host)
    (refused, said), (apart_refused, apart_said) = _packages(ctx, plan), _torch_apart(ctx, plan)
    refused, said = refused + apart_refused + _miniforge(ctx, plan) + _keyring(ctx, plan), said + apart_said
    if ctx.knobs.bundle and apt_needed(plan):
        said.append("apt's packages come through this machine, from the host's own archives: it must reach them")
    return replace(plan, refusals=plan.refusals + tuple(refused), caveats=plan.caveats + tuple(said))


def index_of(ctx: Context) -> str | None:
    """The package index that this host would use by itself; None where it can't be told, or holds a password."""
    configured = ctx.machine.network.pip_index
    index = ctx.knobs.source_pip_index or configured or preflight.default_index()
    return None if index is None or "@" in index else index


def take(host: Host, route: Route) -> None:
    """Keep what was chosen for a host, for the rest of this run."""
    _routes[host.name] = route


def route(ctx: Context, roles: Sequence[str]) -> Route:
    """Where these roles' files come from: as chosen in this run, or as the knobs say where nothing was measured."""
    if ctx.knobs.bundle:
        base = _bundle_address(ctx)
        return Route({**unmeasured(candidates(ctx, roles)).sources, **from_bundle(base)})
    chosen = _routes.get(ctx.host, Route({})).sources
    return Route({**unmeasured(candidates(ctx, roles)).sources, **chosen})


def _bundle_address(ctx: Context) -> str:
    """Where the host finds its bundle; the forward is made anew where the connection is another now."""
    try:
        return _forward.address(ctx_state.get().inventory.get_host(ctx.host), ctx.knobs.bundle or "")
    except RigError:  # refused when it was first asked for: told then, and no step comes this far
        return "http://127.0.0.1:9"


def apt(ctx: Context) -> dict[str, str]:
    """The variables of qwen_rig/shell/apt.sh: proxy, the bundle's address for its archives where there is one, patience."""
    return {"proxy": proxy(ctx), "archives": f"{_bundle_address(ctx)}/{PLACE}" if ctx.knobs.bundle else "",
            "lock_s": str(ctx.knobs.timeout_apt_lock)}


def apt_needed(plan: Plan) -> bool:
    """Whether this plan has apt fetch something."""
    return any(step.component in APT and step.action.changes for step in plan.steps)


def hand_on(host: Host, ctx: Context, plan: Plan, said: str) -> None:
    """Let the host have its archives (`said`: what deploy/sources/archives.sh printed there) and NVIDIA's, each tried
    once. Raises RigError where one can't be had from here either."""
    archive = _forward.archive(bundles.load(ctx.knobs.bundle or "").folder)
    rows = [line.split() for line in said.splitlines() if len(line.split()) == 2]
    rows = [row for row in rows if not row[0].startswith(("cdrom:", "file:", "copy:"))]  # nothing to fetch
    if plan.step_changes("repository"):
        rows.append([repository_at(ctx), "/"])
    archive.allow(uri for uri, _ in rows)
    for uri, suite in rows:
        release = suite.lstrip("/") if suite.endswith("/") else f"dists/{suite}/"
        try:
            archive.file(f"{uri.rstrip('/')}/{release}InRelease".replace("://", "/", 1))
        except Forbidden:
            raise RigError(f"{uri} isn't handed on: only http and https are", host.name,
                           "take it out of the host's apt sources") from None
        except Unreachable as error:
            if error.status != 404:  # an archive may have Release and Release.gpg instead
                apart = " (compilers=never does without)" if _only_compilers(plan) else ""
                raise RigError(f"the host's apt needs {bare(uri)}, which this machine can't reach either ({error})",
                               host.name, "run it where that can be reached; the bundle keeps what was fetched before"
                               + apart) from None


def _only_compilers(plan: Plan) -> bool:
    return not any(plan.step_changes(component) for component in APT if component != "compilers")


def keyring(ctx: Context, fingerprint: str) -> str | None:
    """The bundle's key of that fingerprint, armored; None where it has none."""
    made = bundles.load(ctx.knobs.bundle or "")
    path = f"{bundles.KEYS}/{fingerprint}.asc"
    return (made.folder / path).read_text(encoding="utf-8") if path in made.files else None


def flash_wheels(ctx: Context, wheels: Sequence[Candidate]) -> list[Candidate]:
    """The wheels to attempt, from the bundle where there is one: those that it lacks are left out."""
    if not ctx.knobs.bundle:
        return list(wheels)
    here = {path.rpartition("/")[2]: path for path in bundles.load(ctx.knobs.bundle).files}
    return [replace(wheel, url=f"{_bundle_address(ctx)}/{quote(here[wheel.name])}") for wheel in wheels
            if wheel.name in here]


def source_index(ctx: Context) -> str | None:
    """The package index by its address: a bundle's, the measured one, the host's own; None where none can be told."""
    if ctx.knobs.bundle:
        return route(ctx, ["pip_index"]).first("pip_index")
    return route(ctx, ["pip_index"]).first("pip_index") or index_of(ctx)


def known(ctx: Context, found: Mapping[str, tuple[Source, ...]]) -> dict[str, tuple[Source, ...]]:
    """The candidates to be measured: the client's own default by its address, where that is known here."""
    index = index_of(ctx)
    return {role: tuple(replace(source, url=index) if source.url is None else source for source in sources)
            for role, sources in found.items()}


def files(ctx: Context) -> dict[str, str]:
    """role → the file below its address that is fetched to measure it."""
    return {"conda_channel": "noarch/repodata.json", "miniforge": miniforge_file(ctx),
            "huggingface": load_sources().huggingface.measure}


def proxy(ctx: Context) -> str:
    """The proxy knob, as qwen_rig/shell/network.sh takes it; a bundle is on loopback, where a proxy would look for it on its
    own machine."""
    return "direct" if ctx.knobs.bundle else ctx.knobs.proxy or ""


def turbo(ctx: Context, url: str) -> str:
    """The host's own proxy script (AutoDL's network_turbo), where this URL is to be fetched by way of it: GitHub's
    alone, as it slows what is near. Empty where it isn't wanted."""
    own = ctx.machine.network.proxy_script
    named = own if ctx.knobs.proxy_script == "auto" else ctx.knobs.proxy_script
    if ctx.knobs.bundle or not named or named == "off" or not from_github(url):
        return ""
    return str(named)


def wanted(ctx: Context, plan: Plan) -> Mapping[str, Requirement]:
    """The locked packages that this plan would fetch."""
    step = plan.step("env")
    if not step.action.changes or is_relinked(step):
        return {}
    apart = ctx.stack.apart(ctx.knobs.source_torch_index, ctx.knobs.python)  # torch from an index of its own
    locked = {name: requirement for name, requirement in ctx.stack.requirements(ctx.knobs.python).items()
              if apart is None or name not in apart.names}
    names = step.payload.names if isinstance(step.payload, Mend) else locked
    return {name: locked[name] for name in names if name in locked}


def _packages(ctx: Context, plan: Plan) -> tuple[list[Refusal], list[str]]:
    packages = wanted(ctx, plan)
    if not packages:
        return [], []
    if ctx.knobs.bundle:
        return _bundled(ctx, packages), []
    index = index_of(ctx)
    if index is None:
        return [], ["not checked whether every locked file can be had: this host's index isn't known here"]
    found = _looked(index, packages, ctx.knobs.python)
    if found.unchecked:
        return [], [f"not checked whether every locked file can be had: {found.unchecked}"]
    if not found.missing:
        return [], []
    remedy = "take another source_pip_index"
    if preflight.OTHER_BYTES in found.missing.values():
        remedy += f"; where every index has these bytes, the lock is wrong: make the lock again ({ctx.stack.lock})"
    return [Refusal(_missing(found, packages, "locked files"), remedy)], []


def _torch_apart(ctx: Context, plan: Plan) -> tuple[list[Refusal], list[str]]:
    """The same for the packages that come from an index of their own: by hash, version or name, as far as known."""
    env, apart = plan.step("env"), ctx.stack.apart(ctx.knobs.source_torch_index, ctx.knobs.python)
    if apart is None or not is_filled(env):
        return [], []
    names = ", ".join(apart.names)
    said = [f"{names} come from {bare(apart.index)}, not from the bundle: the host must reach that"] \
        if ctx.knobs.bundle else []
    found = _looked(apart.index, apart.packages, ctx.knobs.python)
    if found.unchecked:
        return [], [*said, f"not checked whether {names} can be had: {found.unchecked}"]
    if not found.missing:
        return [], said
    only = ctx.stack.torch_index is not None and ctx.stack.torch_index.only
    return [Refusal(_missing(found, apart.packages, "packages"), "take another source_torch_index"
                    + (f", or another stack than {ctx.stack.name}" if only else ", or leave it out"))], said


def _looked(index: str, packages: Mapping[str, Requirement], python: str) -> preflight.Look:
    """What an index has of these; asked once in a run."""
    key = preflight.key(index, packages, python)
    with _asking:
        if key not in _looks:
            _looks[key] = preflight.look(index, packages, python)
    return _looks[key]


def _missing(found: preflight.Look, packages: Mapping[str, Requirement], kind: str) -> str:
    named = [f"{name} {packages[name].version} ({why})".replace("  ", " ")
             for name, why in sorted(found.missing.items())]
    more = f" and {len(named) - NAMED} more" if len(named) > NAMED else ""
    return f"{len(named)} of {len(packages)} {kind} can't be had from {bare(found.index)}: " \
           f"{', '.join(named[:NAMED])}{more}"


def _bundled(ctx: Context, packages: Mapping[str, Requirement]) -> list[Refusal]:
    """What the bundle lacks for this host."""
    made = bundles.load(ctx.knobs.bundle or "")
    again = _again(ctx)
    if made.python != ctx.knobs.python:
        what = f"the bundle {made.folder} is for Python {made.python}, and {ctx.knobs.python} is wanted"
        return [Refusal(what, again)]
    if lacking := made.lacking(packages):
        more = f" and {len(lacking) - NAMED} more" if len(lacking) > NAMED else ""
        return [Refusal(f"the bundle {made.folder} lacks {', '.join(lacking[:NAMED])}{more}", again)]
    return []


def _keyring(ctx: Context, plan: Plan) -> list[Refusal]:
    if not ctx.knobs.bundle or not plan.step_changes("repository"):
        return []
    wanted = repository_key(ctx)
    if keyring(ctx, wanted) is not None:
        return []
    return [Refusal(f"the bundle {ctx.knobs.bundle} lacks the key {wanted} of NVIDIA's repository", _again(ctx))]


def repository_key(ctx: Context) -> str:
    """The fingerprint of the key that must sign NVIDIA's repository for this host."""
    key = load_sources().nvidia_apt.key_for(repository_folder(ctx.machine.os)).fingerprint
    return (ctx.knobs.source_nvidia_apt_key or key).replace(" ", "").upper()


def _again(ctx: Context) -> str:
    """The command that makes the bundle whole."""
    folder = bundles.load(ctx.knobs.bundle or "").folder
    return f"qwen-rig bundle {folder} --data stack={ctx.knobs.stack} --data python={ctx.knobs.python}"


def _miniforge(ctx: Context, plan: Plan) -> list[Refusal]:
    if ctx.knobs.bundle or not plan.step_changes("conda"):
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
    return f"{(ctx.knobs.source_miniforge or _session.rules().miniforge.url).rstrip('/')}/{miniforge_file(ctx)}"


def miniforge_file(ctx: Context) -> str:
    """The conda installer's name."""
    version = ctx.knobs.source_miniforge_version or _session.rules().miniforge.version
    return f"Miniforge3-{version}-Linux-x86_64.sh"
