"""A bundle over HTTP, one connection at a time: on a channel of the SSH connection, or a socket of this machine."""

from __future__ import annotations

import http.server
import os
import re
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from qwen_rig.bundle import Bundle
from qwen_rig.network.archive import PLACE, Archive, Forbidden
from qwen_rig.network.web import Unreachable

PIECE = 1 << 18


class Handler(http.server.BaseHTTPRequestHandler):
    """GET and HEAD of what the manifest names, whole or a range; /simple/ is an index (PEP 503) of its wheels; /apt/ is
    what `archive` hands on."""

    protocol_version = "HTTP/1.1"
    timeout = 600
    bundle: Bundle
    archive: Archive

    def do_GET(self) -> None:
        quoted = self.path.partition("?")[0].strip("/")
        path = unquote(quoted)
        if quoted.startswith(f"{PLACE}/"):
            self._apt(quoted.removeprefix(f"{PLACE}/"))
        elif path == "simple" or path.startswith("simple/"):
            self._index(path.removeprefix("simple").strip("/"))
        elif path in self.bundle.files:
            self._file(self.bundle.folder / path)
        else:
            self._page(404, "")

    do_HEAD = do_GET

    def _apt(self, path: str) -> None:
        try:
            found = self.archive.file(path)
        except Forbidden as error:
            self._page(403, "", str(error))
        except (Unreachable, OSError) as error:  # no answer from there, or no room here
            self._page(404 if getattr(error, "status", None) == 404 else 502, "", str(error))
        else:
            self._file(found)

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

    def _page(self, status: int, body: str, why: str | None = None) -> None:
        """An HTML page. why: the status line's words, which apt shows."""
        data = f"<!DOCTYPE html><html><body>\n{body}</body></html>\n".encode()
        self.send_response(status, why and " ".join(why.encode("ascii", "replace").decode().split())[:200])
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    def _file(self, path: Path) -> None:
        with open(path, "rb") as file:
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


def handler(bundle: Bundle, archive: Archive) -> type[Handler]:
    """The handler of one bundle and the archives that go with it."""
    return type("BundleHandler", (Handler,), {"bundle": bundle, "archive": archive})


def answer(bundle: Bundle, archive: Archive, channel: Any) -> None:
    """Serve one connection (a paramiko channel, or any socket) until the other side is done. Never raises."""
    try:
        handler(bundle, archive)(channel, ("ssh", 0), None)  # type: ignore[arg-type]
    except (OSError, EOFError):  # the other side had enough, or the connection is gone
        pass
    finally:
        channel.close()
