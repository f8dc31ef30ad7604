"""A bundle over HTTPS, one connection at a time: on a channel of the SSH connection, or a socket of this machine."""

from __future__ import annotations

import base64
import hmac
import http.server
import re
import secrets
import ssl
from contextlib import suppress
from dataclasses import dataclass, field
from html import escape
from threading import Lock
from typing import Any
from urllib.parse import quote, unquote

from qwen_rig.bundle import Bundle
from qwen_rig.catalog.limits import load_limits
from qwen_rig.inside import Checked, Content, Refused
from qwen_rig.network.archive import PLACE, Archive, Forbidden
from qwen_rig.network.secure import Stream
from qwen_rig.network.web import Unreachable

USER = "qwen-rig"  # of HTTP's Basic authentication; its password is the desk's token


@dataclass
class Desk:
    """The files that one host is served in one run, to whoever says the token, as long as the desk isn't closed.
    `wrong`: why the first file that was refused isn't the manifest's."""

    bundle: Bundle
    archive: Archive
    checked: Checked
    wrong: str = ""
    token: str = field(default_factory=lambda: secrets.token_urlsafe(32), repr=False)
    _open: set[Any] | None = field(default_factory=set, repr=False)  # the connections; None: closed
    _guard: Lock = field(default_factory=Lock, repr=False)

    def enter(self, channel: Any) -> bool:
        """Take a connection on, where there is room for one more."""
        with self._guard:
            if self._open is None or len(self._open) >= load_limits().serve_connections:
                return False
            self._open.add(channel)
            return True

    def leave(self, channel: Any) -> None:
        """The connection is done."""
        with self._guard:
            if self._open is not None:
                self._open.discard(channel)
        _hang_up(channel)

    def close(self) -> None:
        """End every connection, and take no more."""
        with self._guard:
            left, self._open = self._open or set(), None
        for channel in left:
            _hang_up(channel)

    def knows(self, said: str) -> bool:
        """Whether an Authorization header says the token."""
        kind, _, given = said.partition(" ")
        wanted = base64.b64encode(f"{USER}:{self.token}".encode())
        return hmac.compare_digest(given.strip().encode("utf-8", "replace"), wanted) and kind.lower() == "basic"


def _hang_up(channel: Any) -> None:
    with suppress(OSError, EOFError):
        channel.close()


class Handler(http.server.BaseHTTPRequestHandler):
    """GET and HEAD of what the manifest names, whole or a range; /simple/ is an index (PEP 503) of its wheels; /apt/ is
    what the desk's archive hands on."""

    protocol_version = "HTTP/1.1"
    server_version, sys_version = "qwen-rig", ""
    desk: Desk
    connection: Any

    def do_GET(self) -> None:
        if not self.desk.knows(self.headers.get("Authorization", "")):
            self._page(401, "", WWW_Authenticate='Basic realm="qwen-rig"')
            return
        self.connection.trusted(load_limits().serve_idle_s)
        quoted = self.path.partition("?")[0].strip("/")
        path, files = unquote(quoted), self.desk.bundle.files
        if quoted.startswith(f"{PLACE}/"):
            self._apt(quoted.removeprefix(f"{PLACE}/"))
        elif path == "simple" or path.startswith("simple/"):
            self._index(path.removeprefix("simple").strip("/"))
        elif path in files:
            self._file(path, files[path]["sha256"], files[path]["bytes"])
        else:
            self._page(404, "")

    do_HEAD = do_GET

    def _apt(self, path: str) -> None:
        try:
            found = self.desk.archive.file(path)
        except (Forbidden, Refused) as error:
            self._page(403, "", str(error))
        except (Unreachable, OSError) as error:  # no answer from there, or no room here
            self._page(404 if getattr(error, "status", None) == 404 else 502, "", str(error))
        else:
            self._file(found.path, found.sha256, found.bytes)

    def _index(self, project: str) -> None:
        projects = self.desk.bundle.projects()
        if not project:
            self._page(200, "".join(f'<a href="{name}/">{name}</a>\n' for name in projects))
        elif project in projects:
            self._page(200, "".join(
                f'<a href="../../wheels/{quote(file)}#sha256={self.desk.bundle.files[f"wheels/{file}"]["sha256"]}">'
                f'{escape(file)}</a>\n' for file in projects[project]))
        else:
            self._page(404, "")

    def _page(self, status: int, body: str, why: str | None = None, **headers: str) -> None:
        """An HTML page. why: the status line's words, which apt shows."""
        data = f"<!DOCTYPE html><html><body>\n{body}</body></html>\n".encode()
        self.send_response(status, why and " ".join(why.encode("ascii", "replace").decode().split())[:200])
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(data)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    def _file(self, path: str, sha256: str, size: int) -> None:
        """A file whose hash is right; nothing of another, and no end to one that somebody writes to meanwhile."""
        try:
            with self.desk.checked.opened(self.desk.bundle.folder, path, sha256, size) as content:
                self._send(content)
        except Refused as error:
            self.desk.wrong = self.desk.wrong or str(error)
            self._page(403, "", str(error))
        except FileNotFoundError:
            self.desk.wrong = self.desk.wrong or f"{path} is no longer there"
            self._page(404, "")

    def _send(self, content: Content) -> None:
        size = content.size
        start, end = _range(self.headers.get("Range", ""), size)
        self.send_response(206 if (start, end) != (0, size) else 200)
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Length", str(end - start))
        self.send_header("Accept-Ranges", "bytes")
        if (start, end) != (0, size):
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{size}")
        self.end_headers()
        while self.command == "GET" and start < end:
            try:
                piece = content.piece(start, end)
            except (Refused, OSError):
                self.close_connection = True  # short of what was announced, and so no client takes it for whole
                return
            self.wfile.write(piece)
            start += len(piece)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: what is fetched shows in the steps."""


def _range(asked: str, size: int) -> tuple[int, int]:
    """The one range that was asked for, half-open; all of the file where none, or one that makes no sense."""
    found = re.fullmatch(r"bytes=([0-9]{0,18})-([0-9]{0,18})", asked)
    if not found or not (found[1] or found[2]):
        return 0, size
    start, end = (int(found[1]), min(int(found[2]) + 1 if found[2] else size, size)) if found[1] else (
        max(0, size - int(found[2])), size)
    return (start, end) if start < end else (0, size)


def answer(desk: Desk, context: ssl.SSLContext, channel: Any) -> None:
    """Serve one connection (a paramiko channel, or any socket) until the other side is done. Never raises."""
    if not desk.enter(channel):
        _hang_up(channel)
        return
    kind = type("DeskHandler", (Handler,), {"desk": desk})
    try:
        kind(Stream(channel, context, load_limits().serve_begin_s), ("ssh", 0), None)
    except (OSError, EOFError):  # the other side had enough, or the connection is gone
        pass
    finally:
        desk.leave(channel)
