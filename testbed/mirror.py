"""The Debian mirrors of this machine's own apt, read from apt itself."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from ._shell import TestbedError, run

HELPER = "/usr/lib/apt/apt-helper"
RELEASE = "QWEN_RIG_TESTBED_RELEASE"  # the variable that names another release than this machine's, for its hosts
RELEASES = {"bookworm": "12", "trixie": "13"}  # what it may name: Debian's, on a machine with Debian's mirrors


@dataclass(frozen=True)
class Source:
    """One distribution archive: `name` is its path on the bridge, `uri` where this machine gets it."""

    name: str
    uri: str
    suites: tuple[str, ...]
    components: tuple[str, ...]


@dataclass(frozen=True)
class Distribution:
    """What the hosts run: this machine's own release, or the one that was asked for (`own` False)."""

    id: str
    version: str
    codename: str
    sources: tuple[Source, ...]
    own: bool = True

    @property
    def folder(self) -> str:
        """`debian12`: NVIDIA's name for it."""
        return f"{self.id}{self.version}".replace(".", "")


@lru_cache(maxsize=1)
def distribution() -> Distribution:
    """The hosts' release with its archives; only suites of the release itself, third-party ones left out."""
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
    found_here = Distribution(release.get("ID", ""), release.get("VERSION_ID", ""), codename, tuple(sources))
    asked = os.environ.get(RELEASE) or codename
    return found_here if asked == codename else _another(found_here, asked)


def _another(here: Distribution, codename: str) -> Distribution:
    """Another release of this machine's distribution, from the same archives."""
    if here.id != "debian" or codename not in RELEASES:
        raise TestbedError(f"{RELEASE}={codename} · this machine's {here.id} hosts can't be that · "
                           f"known on Debian: {', '.join(RELEASES)}")
    sources = tuple(replace(source, suites=tuple(suite.replace(here.codename, codename, 1) for suite in source.suites))
                    for source in here.sources)
    return Distribution(here.id, RELEASES[codename], codename, sources, own=False)


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
