"""The page served on this machine alone, to who knows the token in its address; nothing can be changed by it."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

HERE = "127.0.0.1"
HEADERS = {"Content-Type": "text/html; charset=utf-8", "Cache-Control": "no-store", "Referrer-Policy": "no-referrer",
           "X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY",
           "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"}


class Server(ThreadingHTTPServer):
    """The page's server. `address`: what to open. Raises OSError where the port is taken."""

    daemon_threads = True

    def __init__(self, port: int, page: Callable[[], str]) -> None:
        self.page, self.token = page, secrets.token_urlsafe(24)
        super().__init__((HERE, port), _Handler)

    @property
    def address(self) -> str:
        return f"http://{HERE}:{self.server_port}/{self.token}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that went away is no news."""


class _Handler(BaseHTTPRequestHandler):
    server: Server
    server_version, sys_version = "qwen-rig", ""
    timeout = 10

    def do_GET(self) -> None:
        """The page, to its own address alone; a name that somebody has made to lead here is another's page."""
        known = self.headers.get("Host", "") in (f"{HERE}:{self.server.server_port}",
                                                 f"localhost:{self.server.server_port}")
        if not known or not secrets.compare_digest(self.path.encode(), f"/{self.server.token}/".encode()):
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        text = self.server.page().encode()
        self.send_response(HTTPStatus.OK)
        for name, value in {**HEADERS, "Content-Length": str(len(text))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the token would stand in it."""
