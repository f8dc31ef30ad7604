"""Where a host's files come from: the sources chosen in this run, a bundle's address, proxies. Shell lines for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from urllib.parse import quote

from qwen_rig import bundle as bundles
from qwen_rig.catalog.flash_wheels import Candidate
from qwen_rig.catalog.lock import Requirement
from qwen_rig.catalog.rules import load_rules
from qwen_rig.catalog.sources import load_sources
from qwen_rig.errors import RigError
from qwen_rig.managed import repository_folder
from qwen_rig.network import preflight
from qwen_rig.network.archive import PLACE, Forbidden
from qwen_rig.network.route import Route, Source, candidates, from_bundle, from_github, unmeasured
from qwen_rig.network.web import Unreachable, bare
from qwen_rig.plan import Context, Plan
from qwen_rig.plan.place import repository_at

from . import adapter
from .adapter import Host
from .tunnel import Tunnels

APT = ("apt", "nvidia_apt")  # the roles that apt fetches


class Network:
    """The sources of one run's hosts."""

    def __init__(self, tunnels: Tunnels) -> None:
        self.tunnels = tunnels
        self._routes: dict[str, Route] = {}

    def take(self, host: Host, route: Route) -> None:
        """Keep what was chosen for a host, for the rest of this run."""
        self._routes[host.name] = route

    def route(self, ctx: Context, roles: Sequence[str]) -> Route:
        """Where these roles' files come from: as chosen in this run, or as the knobs say where nothing was measured."""
        if ctx.knobs.bundle:
            base = self.bundle_address(ctx)
            return Route({**unmeasured(candidates(ctx, roles)).sources, **from_bundle(base)})
        chosen = self._routes.get(ctx.host, Route({})).sources
        return Route({**unmeasured(candidates(ctx, roles)).sources, **chosen})

    def bundle_address(self, ctx: Context) -> str:
        """Where the host finds its bundle; the forward is made anew where the connection is another now."""
        state = adapter.current_state()
        assert state is not None  # steps run in an initialised state
        try:
            return self.tunnels.address(adapter.named(state, ctx.host), ctx.knobs.bundle or "")
        except RigError:  # refused when it was first asked for: told then, and no step comes this far
            return "http://127.0.0.1:9"

    def apt(self, ctx: Context) -> dict[str, str]:
        """The variables of shell/apt.sh: proxy, the bundle's address for its archives where there is one, patience."""
        return {"proxy": proxy(ctx), "archives": f"{self.bundle_address(ctx)}/{PLACE}" if ctx.knobs.bundle else "",
                "lock_s": str(ctx.knobs.timeout_apt_lock)}

    def flash_wheels(self, ctx: Context, wheels: Sequence[Candidate]) -> list[Candidate]:
        """The wheels to attempt, from the bundle where there is one: those that it lacks are left out."""
        if not ctx.knobs.bundle:
            return list(wheels)
        here = {path.rpartition("/")[2]: path for path in bundles.load(ctx.knobs.bundle).files}
        return [replace(wheel, url=f"{self.bundle_address(ctx)}/{quote(here[wheel.name])}") for wheel in wheels
                if wheel.name in here]

    def source_index(self, ctx: Context) -> str | None:
        """The package index by its address: a bundle's, the measured one, the host's own; None where none is known."""
        chosen = self.route(ctx, ["pip_index"]).first("pip_index")
        return chosen if ctx.knobs.bundle else chosen or index_of(ctx)

    def hand_on(self, host: Host, ctx: Context, plan: Plan, said: str) -> None:
        """Let the host have its archives (`said`: what sources/archives.sh printed there) and NVIDIA's, each
        tried once. Raises RigError where one can't be had from here either."""
        archive = self.tunnels.archive(bundles.load(ctx.knobs.bundle or "").folder)
        rows = [line.split() for line in said.splitlines() if len(line.split()) == 2]
        rows = [row for row in rows if not row[0].startswith(("cdrom:", "file:", "copy:"))]  # nothing to fetch
        if plan.fetching("nvidia_apt"):
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
                    apart = _without(plan)
                    raise RigError(f"the host's apt needs {bare(uri)}, which this machine can't reach either ({error})",
                                   host.name, "run it where that can be reached; the bundle keeps what was fetched "
                                   "before"                                   + apart) from None


def apt_needed(plan: Plan) -> bool:
    """Whether this plan has apt fetch something."""
    return bool(plan.fetching(*APT))


def _without(plan: Plan) -> str:
    """The setting that does without all that apt would fetch, in brackets; "" where one of these steps has none."""
    settings = {step.without for step in plan.fetching(*APT)}
    return f" ({', '.join(sorted(settings))})" if all(settings) else ""


def index_of(ctx: Context) -> str | None:
    """The package index that this host would use by itself; None where it can't be told, or holds a password."""
    configured = ctx.machine.network.pip_index
    index = ctx.knobs.source_pip_index or configured or preflight.default_index()
    return None if index is None or "@" in index else index


def keyring(ctx: Context, fingerprint: str) -> str | None:
    """The bundle's key of that fingerprint, armored; None where it has none."""
    made = bundles.load(ctx.knobs.bundle or "")
    path = f"{bundles.KEYS}/{fingerprint}.asc"
    return (made.folder / path).read_text(encoding="utf-8") if path in made.files else None


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
    """The proxy knob, as shell/network.sh takes it; a bundle is on loopback, where a proxy would look for it on its
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
    names = [name for step in plan.fetching("pip_index") for name in step.packages]
    torch = ctx.stack.torch_source(ctx.knobs.source_torch_index, ctx.knobs.python)  # torch from an index of its own
    locked = ctx.stack.requirements(ctx.knobs.python) if names else {}
    return {name: locked[name] for name in names if name in locked and (torch is None or name not in torch.names)}


def repository_key(ctx: Context) -> str:
    """The fingerprint of the key that must sign NVIDIA's repository for this host."""
    key = load_sources().nvidia_apt.key_for(repository_folder(ctx.machine.os)).fingerprint
    return (ctx.knobs.source_nvidia_apt_key or key).replace(" ", "").upper()


def miniforge_url(ctx: Context) -> str:
    """The conda installer's address."""
    return f"{(ctx.knobs.source_miniforge or load_rules().miniforge.url).rstrip('/')}/{miniforge_file(ctx)}"


def miniforge_file(ctx: Context) -> str:
    """The conda installer's name."""
    version = ctx.knobs.source_miniforge_version or load_rules().miniforge.version
    return f"Miniforge3-{version}-Linux-x86_64.sh"
