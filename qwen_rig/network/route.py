"""From which sources a host can take what, and from which it shall: candidates, and the choice by measurement. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from qwen_rig.catalog.limits import load_limits
from qwen_rig.catalog.sources import load_mirrors, load_sources
from qwen_rig.catalog.torch_index import PYTORCH, TorchSource
from qwen_rig.frozen import frozen
from qwen_rig.network.web import bare
from qwen_rig.plan import Context, Plan

SECRET = "***"  # an address with credentials: the host's secret, which conda itself knows (facts/_condarc.py)
DEFAULT = "default"  # the label of the client's own default, and of what the user's knob says
BUNDLE = "bundle"
KEPT = 3  # sources of a kind that an install may fall back through


@frozen
class Source:
    """One place for one role (catalog.sources.ROLES); url None: the client's own default, whatever that is."""

    role: str
    label: str
    url: str | None


@frozen
class Measured:
    """What the host saw of a source. verdict: ok, slow (the time ran out), lies, or why it can't be used."""

    role: str
    label: str
    bytes: int
    ms: int
    verdict: str

    @property
    def speed(self) -> float:
        """Bytes a second."""
        return self.bytes * 1000 / max(self.ms, 1)

    @property
    def usable(self) -> bool:
        return self.verdict in ("ok", "slow") and self.bytes > 0


@frozen
class Route:
    """What a host fetches from in this run: role → sources, the best first. `said` is for the user."""

    sources: Mapping[str, tuple[Source, ...]]
    said: tuple[str, ...] = ()

    def of(self, role: str) -> tuple[Source, ...]:
        """The sources of a role, the best first; never empty for a role that the host needs."""
        return self.sources.get(role, ())

    def first(self, role: str) -> str | None:
        """The best one's address; None: the client's own default."""
        return next((source.url for source in self.of(role)), None)


def needs(plan: Plan) -> tuple[str, ...]:
    """The roles that this plan fetches from and that have candidates."""
    return tuple(role for role in ("miniforge", "pip_index", "conda_channel", "huggingface") if plan.fetching(role))


def candidates(ctx: Context, roles: Sequence[str]) -> dict[str, tuple[Source, ...]]:
    """role → where its files may come from: what the user's knob names and nothing else, or else the default followed
    by the mirrors."""
    knobs, sources, mirrors = ctx.knobs, load_sources(), load_mirrors(ctx.knobs.mirrors)
    configured = ctx.machine.network.pip_index
    channel = ctx.state.condarc.channel(sources.conda_channel) or sources.conda_channel
    named = {  # role → (the knob's, the default's); a configured index with a password stays the host's secret
        "pip_index": (knobs.source_pip_index, None if "@" in (configured or "") else configured or sources.pip_index),
        "conda_channel": (knobs.source_conda_channel, None if channel == SECRET else channel),
        "miniforge": (knobs.source_miniforge, sources.miniforge.url),
        "huggingface": (knobs.source_huggingface, sources.huggingface.url),
    }
    words = {"version": knobs.source_miniforge_version or sources.miniforge.version}
    found = {}
    for role in roles:
        own, default = named[role]
        others = [Source(role, name, at[role].format(**words)) for name, at in mirrors.items() if role in at]
        if role == "conda_channel" and channel == SECRET:
            others = []
        found[role] = (Source(role, DEFAULT, own or default), *(others if own is None else ()))
    return found


def torch_sources(ctx: Context, torch: TorchSource) -> tuple[Source, ...]:
    """Where torch comes from, if from an index of its own: that index, and behind it the mirrors of PyTorch's, but only
    where our own hashes guard the bytes and the user named no index. Not measured: no small file of theirs is locked.
    """
    first = Source("torch_index", DEFAULT, torch.index)
    if not torch.hashed or ctx.knobs.source_torch_index not in (None, PYTORCH):
        return (first,)
    return (first, *(Source(role, name, at[role].format(cuda=ctx.stack.cuda_tag))
                     for name, at in load_mirrors(ctx.knobs.mirrors).items()
                     for role in ("torch_find_links", "torch_index") if role in at))


def from_bundle(base: str) -> dict[str, tuple[Source, ...]]:
    """The roles that a bundle serves, at its address on the host."""
    return {role: (Source(role, BUNDLE, f"{base}/{path}"),)
            for role, path in (("pip_index", "simple/"), ("conda_channel", "conda"), ("miniforge", "miniforge"))}


def unmeasured(found: Mapping[str, tuple[Source, ...]]) -> Route:
    """The route where nothing was measured: what the user named, or the default."""
    return Route({role: rows[:1] for role, rows in found.items()})


def choose(found: Mapping[str, tuple[Source, ...]], rows: Sequence[Measured]) -> tuple[Route, list[str]]:
    """(the route, what is wrong): the default where it is fast enough, else whatever is fastest; what lies is out.

    A role that nothing usable serves is a line of the second, and keeps its default in the first.
    """
    enough = load_limits().measure_enough_bytes_s
    chosen: dict[str, tuple[Source, ...]] = {}
    said: list[str] = []
    wrong: list[str] = []
    for role, sources in found.items():
        seen = {row.label: row for row in rows if row.role == role}
        said += [f"{_named(source)} is not used: its file isn't the locked one" for source in sources
                 if source.label in seen and seen[source.label].verdict == "lies"]
        usable = [source for source in sources if source.label in seen and seen[source.label].usable]
        usable.sort(key=lambda source: -seen[source.label].speed)
        default = next((s for s in usable if s.label == DEFAULT), None)
        if default and seen[DEFAULT].speed >= enough:
            usable = [default, *(s for s in usable if s is not default)]
        if usable:
            chosen[role] = tuple(usable[:KEPT])
            if usable[0].label not in (DEFAULT, BUNDLE):
                said.append(f"{WORDS[role]} from mirror {usable[0].label}, measured fastest"
                            + (f": {UNCHECKED[role]}" if role in UNCHECKED else ""))
        else:
            chosen[role] = sources[:1]
            if seen and role not in OPTIONAL:
                wrong.append(f"{WORDS[role]} can't be fetched: "
                             + "; ".join(f"{_named(s)}: {seen[s.label].verdict}" for s in sources if s.label in seen))
    return Route(chosen, tuple(said)), wrong


def from_github(url: str) -> bool:
    """Whether an address is on the server that Miniforge's and flash-attn's releases are on."""
    defaults = load_sources()
    return urlsplit(url).hostname in {urlsplit(place).hostname for place in (defaults.miniforge.url,
                                                                             defaults.flash_attn.url)}


WORDS = {"pip_index": "packages", "conda_channel": "Python for the env", "miniforge": "Miniforge",
         "huggingface": "models"}
UNCHECKED = {  # role → what its files are checked against, where that isn't a hash that we hold
    "conda_channel": "conda checks these against that mirror's own list only; we hold no hash of them",
    "huggingface": "they are checked against that mirror's own listing only; we hold no hash of them",
}
OPTIONAL = ("huggingface",)  # no step fails without it


def _named(source: Source) -> str:
    where = bare(source.url) if source.url else "the client's own default"
    return where if source.label == DEFAULT else f"mirror {source.label} ({where})"
