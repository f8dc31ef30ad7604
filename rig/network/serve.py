"""A bundle over HTTP, one connection at a time: on a channel of the SSH connection, or a socket of this machine."""

from __future__ import annotations

import http.server
import os
import re
from html import escape
from typing import Any
from urllib.parse import quote, unquote

from .bundle import Bundle

PIECE = 1 << 18


class Handler(http.server.BaseHTTPRequestHandler):
    """GET and HEAD of what the manifest names, whole or a range; /simple/ is an index (PEP 503) of its wheels."""

    protocol_version = "HTTP/1.1"
    timeout = 600
    bundle: Bundle

    def do_GET(self) -> None:
        path = unquote(self.path.partition("?")[0]).strip("/")
        if path == "simple" or path.startswith("simple/"):
            self._index(path.removeprefix("simple").strip("/"))
        elif path in self.bundle.files:
            self._file(path)
        else:
            self._page(404, "")

    do_HEAD = do_GET

    def _index(self, project: str) -> None:
        projects = self.bundle.projects()
        if not project:
            self._page(200, "".join(f'<a href="{name}/">{name}</a>\n' for name in projects))
        elif project in projects:
            self._page(200, "".join(
                f'<a href="../../wheels/{quote(file)}#sha256={self.bundle.files[f"wheels/{file}"]["sha256"]}">'
                f'{escape(file)}</a>\n' for file in projects[project]))
        else:
            self._page(404, "")

    def _page(self, status: int, body: str) -> None:
        data = f"<!DOCTYPE html><html><body>\n{body}</body></html>\n".encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    def _file(self, path: str) -> None:
        with open(self.bundle.folder / path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            start, end = _range(self.headers.get("Range", ""), size)
            self.send_response(206 if (start, end) != (0, size) else 200)
            self.send_header("Content-Type", "application/octet-stream")
            self.send_header("Content-Length", str(end - start))
            self.send_header("Accept-Ranges", "bytes")
            if (start, end) != (0, size):
                self.send_header("Content-Range", f"bytes {start}-{end - 1}/{size}")
            self.end_headers()
            file.seek(start)
            while self.command == "GET" and start < end:
                piece = file.read(min(PIECE, end - start))
                self.wfile.write(piece)
                start += len(piece)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: what is fetched shows in the steps."""


def _range(asked: str, size: int) -> tuple[int, int]:
    """The one range that was asked for, half-open; all of the file where none, or one that makes no sense."""
    found = re.fullmatch(r"bytes=(\d*)-(\d*)", asked)
    if not found or not (found[1] or found[2]):
        return 0, size
    if not found[1]:
        return max(0, size - int(found[2])), size
    start, end = int(found[1]), min(int(found[2]) + 1 if found[2] else size, size)
    return (start, end) if start < end else (0, size)


def handler(bundle: Bundle) -> type[Handler]:
    """The handler of one bundle."""
    return type("BundleHandler", (Handler,), {"bundle": bundle})


def answer(bundle: Bundle, channel: Any) -> None:
    """Serve one connection (a paramiko channel, or any socket) until the other side is done. Never raises."""
    try:
        handler(bundle)(channel, ("ssh", 0), None)  # type: ignore[arg-type]
    except (OSError, EOFError):  # the other side had enough, or the connection is gone
        pass
    finally:
        channel.close()
