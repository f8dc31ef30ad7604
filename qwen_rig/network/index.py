"""What a package index has: its pages (PEP 503 HTML, PEP 691 JSON, or a flat listing), and the file that fits. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from functools import cache
from html.parser import HTMLParser
from urllib.parse import unquote, urljoin, urlsplit

from packaging.specifiers import SpecifierSet
from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import (
    InvalidSdistFilename,
    InvalidWheelFilename,
    canonicalize_name,
    parse_sdist_filename,
    parse_wheel_filename,
)
from packaging.version import InvalidVersion

from qwen_rig.catalog.lock import Requirement
from qwen_rig.frozen import frozen

ACCEPT = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1"
# manylinux tags as pip orders them: the newest glibc first (PEP 600); Ubuntu 22.04's 2.35 is the oldest we serve.
PLATFORMS = [f"manylinux_2_{minor}_x86_64" for minor in range(35, 4, -1)] + [
    "manylinux2014_x86_64", "manylinux2010_x86_64", "manylinux1_x86_64", "linux_x86_64"]


@frozen
class File:
    """A file that an index names. sha256 and bytes are None where it doesn't say."""

    name: str
    url: str
    sha256: str | None
    bytes: int | None


def page_url(index: str, name: str) -> str:
    """A project's page in an index."""
    return f"{index.rstrip('/')}/{canonicalize_name(name)}/"


def parse(body: bytes, kind: str, url: str) -> list[File]:
    """The files on a page. `kind` is its media type, `url` its own address. Raises ValueError for broken JSON."""
    if kind.endswith("json"):
        return [File(row["filename"], urljoin(url, row["url"]), row.get("hashes", {}).get("sha256"), row.get("size"))
                for row in json.loads(body)["files"]]
    links = _Links()
    links.feed(body.decode("utf-8", "replace"))
    found = []
    for href in links.hrefs:
        parts = urlsplit(urljoin(url, href))
        name = unquote(parts.path.rpartition("/")[2])
        if name.endswith((".whl", ".tar.gz", ".zip")):
            digest = re.search(r"(?:^|&)sha256=([0-9a-f]{64})", parts.fragment)
            found.append(File(name, parts._replace(fragment="").geturl(), digest[1] if digest else None, None))
    return found


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.hrefs: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a" and (href := dict(attrs).get("href")):
            self.hrefs.append(href)


@cache
def ranks(python: str) -> dict[Tag, int]:
    """The tags of wheels that fit CPython of that minor version on Linux x86_64, the best first."""
    return {tag: rank for rank, tag in enumerate(tags(python))}


def tags(python: str) -> Iterator[Tag]:
    """The same, in order, each as often as pip names it."""
    version = tuple(int(part) for part in python.split("."))
    yield from cpython_tags(version, platforms=PLATFORMS)
    yield from compatible_tags(version, interpreter=f"cp{''.join(python.split('.'))}", platforms=PLATFORMS)


def best(files: Iterable[File], name: str, wanted: Requirement, python: str) -> File | None:
    """The file that pip would take of these: of the locked version, with a hash of the lock's, the best wheel, else
    the source. A file whose hash the index doesn't give, or the lock, counts by its name."""
    fitting = [(rank, file) for file in files if (rank := _rank(file, name, wanted, python)) is not None]
    return min(fitting, key=lambda pair: pair[0])[1] if fitting else None


def _rank(file: File, name: str, wanted: Requirement, python: str) -> int | None:
    if wanted.hashes and file.sha256 is not None and f"sha256:{file.sha256}" not in wanted.hashes:
        return None
    try:
        if file.name.endswith(".whl"):
            project, version, _, offered = parse_wheel_filename(file.name)
            fits = [rank for tag in offered if (rank := ranks(python).get(tag)) is not None]
            rank = min(fits) if fits else None
        else:
            project, version = parse_sdist_filename(file.name)
            rank = len(ranks(python))
    except (InvalidWheelFilename, InvalidSdistFilename, InvalidVersion):
        return None
    return rank if project == canonicalize_name(name) and _named(wanted.version).contains(version, True) else None


@cache
def _named(version: str) -> SpecifierSet:
    """What pip takes for a version that is named, `2.8.0+cu128` for 2.8.0 too; "": any."""
    return SpecifierSet(f"=={version}" if version else "")
