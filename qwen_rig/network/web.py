"""HTTP from the controller, by the standard library: proxies and certificates are the environment's.

Whatever is fetched, by a redirect too, is at a public address and by https, unless the user named that very server.
"""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from functools import partial
from typing import IO, Any
from urllib.parse import unquote, urlsplit

from qwen_rig.frozen import frozen
from qwen_rig.network.address import NotAllowed, check_name, dial, origin

LARGEST_PAGE = 64 << 20  # an index page; the largest projects' are a few MB


class Unreachable(Exception):
    """No answer, or none that says yes or no; its text is why. status: HTTP's, where the server said one."""

    status: int | None = None


@frozen
class Answer:
    """A page: its status (200, 404 or 410), body, media type, and address after redirects."""

    status: int
    body: bytes
    kind: str
    url: str


def get(url: str, seconds: float, accept: str = "*/*", head: bool = False, own: str | None = None) -> Answer:
    """GET (or HEAD) a page; `own` as opened() takes it. Raises Unreachable for every answer but 200, 404 and 410, and
    where none comes or none may be asked for."""
    try:
        with opened(url, seconds, {"Accept": accept}, "HEAD" if head else "GET", own) as answer:
            return Answer(200, answer.read(LARGEST_PAGE), answer.headers.get_content_type(), answer.url)
    except NotAllowed as error:
        raise Unreachable(str(error)) from None
    except urllib.error.HTTPError as error:
        if error.code in (404, 410):
            return Answer(error.code, b"", "", url)
        raise Unreachable(f"HTTP {error.code}") from None
    except urllib.error.URLError as error:
        raise Unreachable(str(error.reason) or type(error.reason).__name__) from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise Unreachable(str(error) or type(error).__name__) from None


def opened(url: str, seconds: float, headers: dict[str, str], method: str = "GET", own: str | None = None,
           plain: bool = False) -> Any:
    """The answer to a request, as urllib's urlopen gives it, with its exceptions. Raises NotAllowed where the address,
    or one that it redirects to, may not be asked.

    own: what the user's knob names; that server (scheme, host and port) may be private, and plain http. plain: others
    may be plain http, as a signature guards the bytes.
    """
    request = _Request(url, own, plain, headers={"User-Agent": "qwen-rig", **headers}, method=method)
    opener = urllib.request.OpenerDirector()
    for handler in (urllib.request.ProxyHandler(), urllib.request.UnknownHandler(), _Handler(), _Redirects(),
                    urllib.request.HTTPDefaultErrorHandler(), urllib.request.HTTPErrorProcessor()):
        opener.add_handler(handler)
    if own and own.startswith("file:") and url.startswith(f"{own.rstrip('/')}/"):
        opener.add_handler(urllib.request.FileHandler())
    return opener.open(request, timeout=seconds)


class _Request(urllib.request.Request):
    """A request that knows what the user named."""

    def __init__(self, url: str, own: str | None, plain: bool, **more: Any) -> None:
        super().__init__(url, **more)
        self.own, self.plain = own, plain

    @property
    def named(self) -> bool:
        """Whether the user named this very server."""
        return self.own is not None and origin(self.full_url) == origin(self.own)


class _Redirects(urllib.request.HTTPRedirectHandler):
    """A redirect is followed as a request like any other: what the user named stays what the user named."""

    def redirect_request(self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str,
                         headers: http.client.HTTPMessage, newurl: str) -> urllib.request.Request | None:
        found = super().redirect_request(req, fp, code, msg, headers, newurl)
        if found is None or not isinstance(req, _Request):
            return found
        return _Request(found.full_url, req.own, req.plain, headers=found.headers, method=req.get_method())


class _Dialled(http.client.HTTPConnection):
    """A connection to an address that was checked."""

    private = False  # whether the user named it, so that it may be anywhere

    def connect(self) -> None:
        self.sock = dial(self.host, self.port, self.timeout, self.private)
        if getattr(self, "_tunnel_host", None):  # https by way of a proxy
            getattr(self, "_tunnel")()  # noqa: B009  private to http.client, and what its own connect() calls


class _Secure(http.client.HTTPSConnection, _Dialled):
    """The same under TLS, which HTTPSConnection lays over what the next class in line has connected."""


class _Handler(urllib.request.AbstractHTTPHandler):
    """Opens http and https, where that may be."""

    http_request = https_request = urllib.request.AbstractHTTPHandler.do_request_

    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(partial(_connection, _Dialled, _may_be_private(req)), req)

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(partial(_connection, _Secure, _may_be_private(req)), req)


def _connection(kind: type[_Dialled], private: bool, host: str, **more: Any) -> _Dialled:
    made = kind(host, **more)
    made.private = private
    return made


def _may_be_private(req: urllib.request.Request) -> bool:
    """Whether what is connected to may have a private address: what the user named, a proxy included. Raises NotAllowed
    where a proxy is asked for what may not be fetched, or where plain http guards nothing."""
    assert isinstance(req, _Request)
    asked = urlsplit(req.full_url)
    if not req.named and not req.plain and asked.scheme != "https":
        raise NotAllowed(f"{bare(req.full_url)} is not https: only what a knob names may be by http")
    proxied = req.host != unquote(asked.netloc)  # urllib's ProxyHandler puts the proxy there
    if proxied and not req.named:
        check_name(asked.hostname or "")
    return req.named or proxied


def private_to_host(url: str) -> bool:
    """Whether an address means another machine here than on the host: loopback, or a file."""
    parts = urlsplit(url)
    name = parts.hostname or ""
    return parts.scheme == "file" or name == "localhost" or name.startswith("127.") or name == "::1"


def bare(url: str) -> str:
    """The address without user and password, to be shown."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
