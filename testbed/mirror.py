"""The Debian mirrors of this machine's own apt, read from apt itself."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from ._shell import TestbedError, run

HELPER = "/usr/lib/apt/apt-helper"


@dataclass(frozen=True)
class Source:
    """One distribution archive: `name` is its path on the bridge, `uri` where this machine gets it."""

    name: str
    uri: str
    suites: tuple[str, ...]
    components: tuple[str, ...]


@dataclass(frozen=True)
class Distribution:
    """What this machine runs, and so what its hosts run."""

    id: str
    version: str
    codename: str
    sources: tuple[Source, ...]

    @property
    def folder(self) -> str:
        """`debian12`: NVIDIA's name for it."""
        return f"{self.id}{self.version}".replace(".", "")


@lru_cache(maxsize=1)
def distribution() -> Distribution:
    """This machine's release with its archives; only suites of the release itself, third-party ones left out."""
    release = _os_release()
    codename = release.get("VERSION_CODENAME", "")
    if not Path(HELPER).exists() or not codename:
        raise TestbedError("apt · not found on this machine · the testbed needs Debian or Ubuntu")
    listing = run(["apt-get", "indextargets", "--no-release-info", "--format", "$(REPO_URI)|$(RELEASE)|$(COMPONENT)",
                   "Created-By: Packages"])
    found: dict[str, tuple[list[str], list[str]]] = {}
    for line in listing.splitlines():
        uri, suite, component = line.split("|")
        if suite != codename and not suite.startswith(f"{codename}-"):
            continue
        suites, components = found.setdefault(uri.rstrip("/"), ([], []))
        suites.extend([suite] if suite not in suites else [])
        components.extend([component] if component not in components else [])
    if not any(codename in suites for suites, _ in found.values()):
        raise TestbedError(f"apt sources · none has suite {codename} · add this machine's release to its apt sources")
    sources: list[Source] = []
    for uri, (suites, components) in found.items():
        name = uri.rsplit("/", 1)[-1]
        if any(source.name == name for source in sources):
            name += f"-{len(sources)}"
        sources.append(Source(name, uri, tuple(suites), tuple(components)))
    return Distribution(release.get("ID", ""), release.get("VERSION_ID", ""), codename, tuple(sources))


def proxies() -> dict[str, str]:
    """http_proxy for commands that don't read apt's configuration, from apt's own."""
    value = run(["apt-config", "shell", "PROXY", "Acquire::http::Proxy"]).strip()
    return {"http_proxy": value.split("=", 1)[1].strip("'\"")} if value else {}


def date_checks() -> str:
    """apt.conf lines: how this machine's apt treats the dates in Release files, for mirrors that are snapshots."""
    names = ("Acquire::Check-Date", "Acquire::Check-Valid-Until")
    said = {name: run(["apt-config", "shell", "V", f"{name}/b"]) for name in names}
    values = {name: text.partition("=")[2].strip().strip("'") for name, text in said.items()}
    return "".join(f'{name} "{value}";\n' for name, value in values.items() if value)


def _os_release() -> dict[str, str]:
    lines = Path("/etc/os-release").read_text(encoding="utf-8").splitlines()
    return {key: value.strip('"') for key, _, value in (line.partition("=") for line in lines) if key}
