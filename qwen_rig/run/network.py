"""Where a host's files come from: the sources chosen in this run, a bundle's address, proxies. Shell lines for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import quote

from qwen_rig import bundle as bundles
from qwen_rig.catalog.flash_wheels import Candidate
from qwen_rig.catalog.hub_kernel import RUNG as KERNEL
from qwen_rig.catalog.lock import Requirement
from qwen_rig.catalog.rules import load_rules
from qwen_rig.catalog.sources import load_sources
from qwen_rig.errors import RigError
from qwen_rig.inside import Checked, Refused
from qwen_rig.network import preflight
from qwen_rig.network.archive import PLACE, Forbidden, is_address
from qwen_rig.network.route import Route, Source, candidates, from_bundle, from_github, unmeasured
from qwen_rig.network.web import Unreachable, bare
from qwen_rig.plan import Context, Plan
from qwen_rig.plan.place import repository_at

from . import adapter
from .adapter import Host

if TYPE_CHECKING:
    from .tunnel import Tunnels, Way

APT = ("apt", "nvidia_apt")  # the roles that apt fetches
LONGEST_KEY = 1 << 20
SAID = 4  # archives that a line names
MOST_ARCHIVES = 200  # that a host's apt is set up with


class Network:
    """The sources of one run's hosts. `tunnels`: the run's, which most runs need none of."""

    def __init__(self, tunnels: Callable[[], Tunnels]) -> None:
        self._tunnels = tunnels
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
        return self._bundle(ctx).address

    def _bundle(self, ctx: Context) -> Way:
        state = adapter.current_state()
        assert state is not None  # steps run in an initialised state
        try:
            return self._tunnels().way(adapter.named(state, ctx.host), ctx.knobs.bundle or "")
        except RigError:  # refused when it was first asked for: told then, and no step comes this far
            from .tunnel import Way
            return Way("https://127.0.0.1:9", "")

    def way_out(self, ctx: Context) -> dict[str, str]:
        """The variables of shell/network.sh: the proxy, and what it takes to get at a bundle through the tunnel."""
        return {"proxy": proxy(ctx), "secret_tunnel": self._bundle(ctx).secret if ctx.knobs.bundle else ""}

    def apt(self, ctx: Context) -> dict[str, str]:
        """The variables of shell/apt.sh: the way out, the bundle's address for its archives where there is one,
        patience."""
        return {**self.way_out(ctx), "lock_s": str(ctx.knobs.timeout_apt_lock),
                "archives": f"{self.bundle_address(ctx)}/{PLACE}" if ctx.knobs.bundle else ""}

    def flash_wheels(self, ctx: Context, wheels: Sequence[Candidate]) -> list[Candidate]:
        """What to attempt, from the bundle where there is one: what it lacks is left out. A kernel's files are below
        the Hub's address."""
        if not ctx.knobs.bundle:
            hub = self.route(ctx, ["huggingface"]).first("huggingface") or load_sources().huggingface.url
            return [replace(wheel, url=f"{hub.rstrip('/')}/{wheel.url}") if wheel.rung == KERNEL else wheel
                    for wheel in wheels]
        here = {path.rpartition("/")[2]: path for path in bundles.load(ctx.knobs.bundle).files}
        return [replace(wheel, url=f"{self.bundle_address(ctx)}/{quote(here[wheel.name])}") for wheel in wheels
                if wheel.name in here]

    def source_index(self, ctx: Context) -> str | None:
        """The package index by its address: a bundle's, the measured one, the host's own; None where none is known."""
        chosen = self.route(ctx, ["pip_index"]).first("pip_index")
        return chosen if ctx.knobs.bundle else chosen or index_of(ctx)

    def hand_on(self, host: Host, ctx: Context, plan: Plan, said: str) -> None:
        """Let the host have the archives that the user's knobs and our data name, those that it needs tried once.

        `said`: what sources/archives.sh printed there. A host is a stranger: what it prints opens nothing, and is only
        looked for among those. Raises RigError where it needs another, or one that can't be fetched from here either.
        """
        archive = self._tunnels().desk(host, ctx.knobs.bundle or "").archive
        archive.allow((ctx.knobs.source_apt or "").split(), named=True)
        archive.allow([repository_at(ctx)], named=ctx.knobs.source_nvidia_apt is not None)
        rows = [line.split() for line in said.splitlines()[:MOST_ARCHIVES] if len(line.split()) == 2]
        rows = [row for row in rows if not row[0].startswith(("cdrom:", "file:", "copy:"))]  # nothing to fetch
        if unnamed := sorted({uri.rstrip("/") for uri, _ in rows if not archive.covers(uri)}):
            raise _not_named(host.name, unnamed)
        if plan.fetching("nvidia_apt"):
            rows.append([repository_at(ctx), "/"])
        for uri, suite in rows:
            release = suite.lstrip("/") if suite.endswith("/") else f"dists/{suite}/"
            try:
                archive.file(f"{uri.rstrip('/')}/{release}InRelease".replace("://", "/", 1))
            except (Forbidden, Refused) as error:
                raise RigError(f"{bare(uri)} isn't handed on: {error}", host.name,
                               "look at the host's apt sources, and at the bundle's folder") from None
            except Unreachable as error:
                if error.status != 404:  # an archive may have Release and Release.gpg instead
                    raise RigError(f"the host's apt needs {bare(uri)}, which this machine can't reach either ({error})",
                                   host.name, "run it where that can be reached; the bundle keeps what was fetched "
                                   f"before{_without(plan)}") from None


def _not_named(host: str, uris: Sequence[str]) -> RigError:
    """What to say of archives that only the host names."""
    if odd := next((uri for uri in uris if not is_address(uri)), None):
        return RigError(f"the host's apt has a source that no bundle can hand on: {ascii(odd)[:120]}", host,
                        "take it out of the host's apt sources")
    named = " ".join(uri[:200] for uri in uris[:SAID])
    return RigError(f"the host's apt needs what no knob names: {named}", host,
                    "name them in source_apt if you trust them, or take them out of the host's apt sources")


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
    row = made.files.get(path)
    if row is None or row["bytes"] > LONGEST_KEY:
        return None
    try:
        with Checked().opened(made.folder, path, row["sha256"], row["bytes"]) as content:
            return content.piece(0, row["bytes"]).decode()
    except (Refused, OSError, UnicodeDecodeError):  # spoilt, and as good as not there
        return None


def known(ctx: Context, found: Mapping[str, tuple[Source, ...]]) -> dict[str, tuple[Source, ...]]:
    """The candidates to be measured: the client's own default by its address, where that is known here."""
    index = index_of(ctx)
    return {role: tuple(replace(source, url=index) if source.url is None and role == "pip_index" else source
                        for source in sources)
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


def miniforge_url(ctx: Context) -> str:
    """The conda installer's address."""
    return f"{(ctx.knobs.source_miniforge or load_rules().miniforge.url).rstrip('/')}/{miniforge_file(ctx)}"


def miniforge_file(ctx: Context) -> str:
    """The conda installer's name."""
    version = ctx.knobs.source_miniforge_version or load_rules().miniforge.version
    return f"Miniforge3-{version}-Linux-x86_64.sh"
