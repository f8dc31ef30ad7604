"""The host's part: one small file from each candidate, timed and hashed, by measure.sh. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from qwen_rig.catalog.limits import load_limits
from qwen_rig.catalog.lock import Requirement
from qwen_rig.frozen import frozen
from qwen_rig.network.route import Measured, Source
from qwen_rig.program import Call, lines, load


@frozen
class Probe:
    """The locked package that an index is judged by; any file of it whose sha256 the lock has will do."""

    project: str
    version: str
    hashes: tuple[str, ...]


def probe_of(packages: Mapping[str, Requirement]) -> Probe | None:
    """The largest of these that is still small; None where no size is known."""
    largest = load_limits().measure_largest_bytes
    small = [(r.bytes, name) for name, r in packages.items() if r.bytes and r.bytes <= largest]
    if not small:
        return None
    name = max(small)[1]
    found = packages[name]
    return Probe(name, found.version, tuple(each.removeprefix("sha256:") for each in found.hashes))


MEASURE = load("shell/network.sh", "network/measure.sh")


def script(found: Mapping[str, tuple[Source, ...]], probe: Probe | None, files: Mapping[str, str],
           channels: Mapping[str, str], way_out: Mapping[str, str],
           aside: Callable[[str], str] = lambda url: "") -> Call:
    """A program that prints a row for each source it could ask: the defaults first, all at once, and the mirrors of a
    role only where its default isn't good. A default of unknown address is not asked.

    files: role → the file below its address that is fetched; channels: a channel's name → its address; aside: an
    address → the proxy script that is read before it is fetched from; way_out: the variables of shell/network.sh.
    """
    limits = load_limits()
    asked = []
    for sources in found.values():
        for source in sources:
            if words := _words(source, probe, files, channels):
                role, label, url, *locked = words
                asked.append("\t".join([role, label, aside(url) or "-", url, *locked]))
    return MEASURE(asked=lines(asked), limit=str(limits.measure_seconds), enough=str(limits.measure_enough_bytes_s),
                   **way_out)


def _words(source: Source, probe: Probe | None, files: Mapping[str, str], channels: Mapping[str, str],
           ) -> list[str] | None:
    if source.url is None:
        return None
    url = channels.get(source.url, source.url).rstrip("/")
    if source.role == "pip_index":
        return [source.role, source.label, url, probe.project, probe.version, *probe.hashes] if probe else None
    return [source.role, source.label, f"{url}/{files[source.role]}"] if source.role in files and "://" in url else None


def read(text: str) -> list[Measured]:
    """The rows that the script printed; a line that isn't one is passed over."""
    rows = []
    for line in text.splitlines():
        cells = line.split("\t")
        if len(cells) == 5 and cells[2].isdigit() and cells[3].lstrip("-").isdigit() and cells[4] != "unmeasured":
            rows.append(Measured(cells[0], cells[1], int(cells[2]), int(cells[3]), cells[4].strip() or "failed"))
    return rows
