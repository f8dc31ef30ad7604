"""The one HTTP process on the bridge: archives handed on, folders served, faults on demand, requests counted."""

from __future__ import annotations

import http.server
import json
import os
import re
import select
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from email.utils import formatdate, parsedate_to_datetime
from html import escape
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote, unquote

from .mirror import Distribution
from .passthrough import Archive, Unavailable
from .wheels import Wheelhouse

HANG_S = 900  # a hanging mirror lets go after this, so that nothing outlives a forgotten client
PAYLOAD = re.compile(r"\.(deb|whl|sh|zst|gz|conda|bz2|safetensors)$")  # what -files faults break, indexes left sound
# broken: 404. hang: no answer. lacking-NAME: 404 for what begins with that name. lying: payloads with one byte changed
# (lying-NAME: of that name only). slow: payloads that trickle. broken-files and hang-files: those payloads only.
FAULTS = ("broken", "hang", "lacking", "lying", "slow")
TRICKLE, TRICKLE_S = 4096, 0.2  # bytes, and how often: slower than anything that the bridge serves otherwise
LIE = 10  # that byte: in a wheel its first member's time of day, so that it stays a sound wheel with another hash
INSTALLER = re.compile(r"(?:[^/]+/)?(Miniforge3-[^/]+-Linux-x86_64\.sh)(\.sha256)?")


@dataclass(frozen=True)
class Site:
    """What is served: archives by name, folders by first path segment, the wheelhouse, the installer and its hash."""

    cache: str
    archives: dict[str, str]
    folders: dict[str, str] = field(default_factory=dict)
    wheels: str | None = None
    installer: str | None = None
    installer_sha256: str = ""


class Server(http.server.ThreadingHTTPServer):
    """Threads, a counter by client and path, and the site."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], site: Site) -> None:
        self.site = site
        self.archives = {name: Archive(uri, Path(site.cache) / "archive" / name) for name, uri in site.archives.items()}
        self.wheelhouse = Wheelhouse(Path(site.wheels)) if site.wheels else None
        self.counts: Counter[tuple[str, str]] = Counter()
        self.lock = threading.Lock()
        super().__init__(address, Handler)


class Handler(http.server.BaseHTTPRequestHandler):
    """GET and HEAD."""

    server: Server
    protocol_version = "HTTP/1.1"
    fault = ""

    def do_GET(self) -> None:
        path = unquote(self.path.split("?", 1)[0].split("#", 1)[0]).lstrip("/")
        with self.server.lock:
            self.server.counts[(self.client_address[0], f"/{path}")] += 1
        first, _, rest = path.partition("/")
        fault, _, only = first.partition("-")
        self.fault = fault if PAYLOAD.search(rest) and f"/{only}" in rest else ""
        if fault in ("broken", "hang"):
            if only != "files" or PAYLOAD.search(rest):
                self._fail(fault)
                return
        elif fault == "lacking" and f"/{only}" in f"/{rest}":
            self._fail("broken")
            return
        if fault in FAULTS:
            first, _, rest = rest.partition("/")
        self._route(first, rest)

    do_HEAD = do_GET

    def _route(self, first: str, rest: str) -> None:
        site = self.server.site
        if first == "requests":
            self._requests()
        elif first in self.server.archives:
            try:
                self._file(self.server.archives[first].path(rest))
            except Unavailable:
                self._status(404)
        elif first == "pypi" and self.server.wheelhouse:
            self._pypi(rest)
        elif first == "miniforge" and site.installer:
            self._miniforge(rest)
        elif first in site.folders:
            root = Path(site.folders[first]).resolve()
            target = (root / rest).resolve()
            self._file(target) if target.is_relative_to(root) else self._status(404)
        else:
            self._status(404)

    def _fail(self, fault: str) -> None:
        if fault == "hang":
            select.select([self.connection], [], [], HANG_S)  # readable: the client sent more, or went away
            self.close_connection = True
        else:
            self._status(404)

    def _requests(self) -> None:
        with self.server.lock:
            rows = [{"client": client, "path": path, "count": n} for (client, path), n in self.server.counts.items()]
        self._text(json.dumps(rows), "application/json")

    def _pypi(self, rest: str) -> None:
        """PEP 503: the list, a project's page with sha256 fragments, a file."""
        house, parts = self.server.wheelhouse, [part for part in rest.split("/") if part]
        assert house is not None
        if parts[:1] == ["files"] and len(parts) == 2:
            self._file(house.folder / Path(parts[1]).name)
        elif parts == ["simple"]:
            names = "".join(f'<a href="{name}/">{name}</a><br>\n' for name in sorted(house.projects()))
            self._text(f"<!DOCTYPE html><html><body>\n{names}</body></html>\n", "text/html")
        elif len(parts) == 2 and parts[0] == "simple" and parts[1] in house.projects():
            links = "".join(f'<a href="../../files/{quote(file)}#sha256={sha256}">{escape(file)}</a><br>\n'
                            for file, sha256 in house.files(parts[1]))
            self._text(f"<!DOCTYPE html><html><body>\n{links}</body></html>\n", "text/html")
        else:
            self._status(404)

    def _miniforge(self, rest: str) -> None:
        """The stand-in installer under any version's name, and its hash in Miniforge's own format."""
        found = INSTALLER.fullmatch(rest)
        if found is None:
            self._status(404)
        elif found[2]:
            self._text(f"{self.server.site.installer_sha256}  ./{found[1]}\n", "text/plain")
        else:
            self._file(Path(self.server.site.installer or ""))

    def _file(self, path: Path) -> None:
        if not path.is_file():
            self._status(404)
            return
        with open(path, "rb") as file:
            stat = os.fstat(file.fileno())
            since = self.headers.get("If-Modified-Since")
            modified = datetime.fromtimestamp(int(stat.st_mtime), timezone.utc)
            if since and parsedate_to_datetime(since) >= modified:
                self._status(304)
                return
            start, end = self._range(stat.st_size)
            self.send_response(206 if (start, end) != (0, stat.st_size) else 200)
            self.send_header("Content-Type", "application/octet-stream")
            self.send_header("Content-Length", str(end - start))
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("Last-Modified", formatdate(int(stat.st_mtime), usegmt=True))
            if (start, end) != (0, stat.st_size):
                self.send_header("Content-Range", f"bytes {start}-{end - 1}/{stat.st_size}")
            self.end_headers()
            if self.command == "GET" and end > start:
                self.wfile.flush()
                if self.fault in ("lying", "slow"):
                    self._faulty(file, start, end)
                else:
                    self.connection.sendfile(file, start, end - start)

    def _faulty(self, file: BinaryIO, start: int, end: int) -> None:
        file.seek(start)
        for begin in range(start, end, TRICKLE):
            piece = file.read(min(TRICKLE, end - begin))
            if self.fault == "lying":
                at = min(LIE, os.fstat(file.fileno()).st_size - 1) - begin
                piece = piece[:at] + bytes([255 - piece[at]]) + piece[at + 1:] if 0 <= at < len(piece) else piece
            else:
                time.sleep(TRICKLE_S)
            try:
                self.wfile.write(piece)
            except OSError:  # the client had enough
                self.close_connection = True
                return

    def _range(self, size: int) -> tuple[int, int]:
        """The one range that was asked for, half-open; the whole file where none or a strange one was."""
        found = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        if not found or not (found[1] or found[2]):
            return 0, size
        if not found[1]:
            return max(0, size - int(found[2])), size
        start, end = int(found[1]), int(found[2]) + 1 if found[2] else size
        return (start, min(end, size)) if start < size else (0, size)

    def _text(self, text: str, kind: str) -> None:
        body = text.encode()
        self.send_response(200)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def _status(self, code: int) -> None:
        self.send_response(code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are counted, not logged."""


@contextmanager
def serving(address: str, port: int, cache: Path, dist: Distribution) -> Iterator[None]:
    """Hand on the archives from a thread of this process, while the base is being built."""
    server = Server((address, port), Site(str(cache), {source.name: source.uri for source in dist.sources}))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()


def main(argv: list[str]) -> None:
    """FOLDER ADDRESS PORT: serve FOLDER/site.json until killed; FOLDER/http.ready appears once bound."""
    folder, address, port = Path(argv[0]), argv[1], int(argv[2])
    server = Server((address, port), Site(**json.loads((folder / "site.json").read_text(encoding="utf-8"))))
    (folder / "http.ready").touch()
    server.serve_forever()


def site_json(site: Site) -> str:
    """The site as the process reads it."""
    return json.dumps(asdict(site))


if __name__ == "__main__":
    main(sys.argv[1:])
