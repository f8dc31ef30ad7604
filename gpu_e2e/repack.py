"""The machine's own Python packages as wheels, an index of them, and a hash lock: what a registry would serve.

Run by the Python that has torch. Usage: repack.py OUT LOCK CARRIED ROOT…
"""

from __future__ import annotations

import csv
import hashlib
import io
import re
import shutil
import sys
import zipfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from email.parser import Parser
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

CHUNK = 1 << 22
LEFT_OUT = ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json")  # of a dist-info: written by who installed it


@dataclass(frozen=True)
class Packed:
    """One wheel: a line of the lock, and where it lies."""

    name: str
    version: str
    path: Path
    sha256: str


def normal(name: str) -> str:
    """A distribution's name as indexes spell it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def carried(folder: Path) -> dict[str, tuple[Path, str, list[str]]]:
    """The wheels that were brought along: name → file, version, requirements."""
    found = {}
    for path in folder.glob("*.whl"):
        with zipfile.ZipFile(path) as wheel:
            inside, = (name for name in wheel.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", name))
            head = Parser().parsestr(wheel.read(inside).decode())
        found[normal(head["Name"])] = (path, head["Version"], head.get_all("Requires-Dist") or [])
    return found


def closure(roots: list[str], requires: dict[str, list[str]]) -> set[str]:
    """The roots and all that they need, with the extras that are asked for. Raises LookupError for what isn't there."""
    left, seen = [(normal(root), frozenset[str]()) for root in roots], set()
    while left:
        name, extras = left.pop()
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        if name not in requires:
            raise LookupError(f"neither the machine nor the kit has {name}")
        for need in map(Requirement, requires[name]):
            if need.marker is None or any(need.marker.evaluate({"extra": each}) for each in extras or {""}):
                left.append((normal(need.name), frozenset(need.extras)))
    return {name for name, _ in seen}


def pack(name: str, out: Path) -> Packed:
    """A wheel of an installed distribution: its files as they are, with a record of its own."""
    made = metadata.distribution(name)
    base, info = Path(str(made.locate_file(""))), Path(str(getattr(made, "_path"))).name  # noqa: B009
    tags = [line.partition(":")[2].strip() for line in (made.read_text("WHEEL") or "").splitlines()
            if line.startswith("Tag:")] or ["py3-none-any"]
    tag = "-".join(".".join(sorted({each.split("-")[part] for each in tags})) for part in range(3))
    path = out / f"{info[:-len('.dist-info')].split('-')[0]}-{made.version}-{tag}.whl"
    rows = []
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True) as wheel:
        for file in map(str, made.files or []):
            if file.startswith("..") or file.endswith(".pyc") or file in [f"{info}/{each}" for each in LEFT_OUT] \
                    or not (base / file).is_file():
                continue
            wheel.write(base / file, file)
            rows.append((file, "", ""))
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([*rows, (f"{info}/RECORD", "", "")])
        wheel.writestr(f"{info}/RECORD", text.getvalue())
    return Packed(name, made.version, path, digest(path))


def digest(path: Path) -> str:
    """sha256 of a file."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            found.update(chunk)
    return found.hexdigest()


def index(files: list[tuple[Path, str]], root: Path) -> None:
    """A PEP 503 index of files that lie in a folder beside it; what it has already stays."""
    pages: dict[str, list[str]] = {}
    for path, sha256 in files:
        name = normal(path.name.split("-")[0] if path.suffix == ".whl" else re.sub(r"-\d.*", "", path.name))
        pages.setdefault(name, []).append(f'<a href="../../files/{path.name}#sha256={sha256}">{path.name}</a><br>')
    for name, links in pages.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        with (root / name / "index.html").open("a") as page:
            page.write(f"{'' if page.tell() else '<!DOCTYPE html>'}{''.join(links)}")


def main(out: Path, lock: Path, brought: Path, roots: list[str]) -> None:
    """Write wheels, index and lock."""
    out.mkdir(parents=True, exist_ok=True)
    ours = carried(brought)
    theirs = {normal(each.metadata["Name"]): each.requires or [] for each in metadata.distributions()}
    wanted = closure(roots, {**theirs, **{name: needs for name, (_, _, needs) in ours.items()}})
    with ProcessPoolExecutor() as pool:
        made = list(pool.map(pack, sorted(wanted - set(ours)), [out] * len(wanted)))
    for file in brought.iterdir():
        shutil.copy(file, out / file.name)
    made += [Packed(name, version, path, digest(path)) for name, (path, version, _) in ours.items() if name in wanted]
    known = {each.path.name: each.sha256 for each in made}
    index([(path, known.get(path.name) or digest(path)) for path in sorted(out.iterdir())], out.parent / "simple")
    lock.write_text("".join(sorted(f"{each.name}=={each.version} --hash=sha256:{each.sha256}\n" for each in made)))
    print(f"{len(made)} packages, {sum(path.stat().st_size for path in out.iterdir()) >> 20} MiB")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4:])
