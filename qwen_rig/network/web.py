"""HTTP from the controller, by the standard library: proxies and certificates are the environment's."""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from dataclasses import dataclass
from urllib.parse import urlsplit

LARGEST_PAGE = 64 << 20  # an index page; the largest projects' are a few MB


class Unreachable(Exception):
    """No answer, or none that says yes or no; its text is why. status: HTTP's, where the server said one."""

    status: int | None = None


@dataclass(frozen=True)
class Answer:
    """A page: its status (200, 404 or 410), body, media type, and address after redirects."""

    status: int
    body: bytes
    kind: str
    url: str


def get(url: str, seconds: float, accept: str = "*/*", head: bool = False) -> Answer:
    """GET (or HEAD) a page. Raises Unreachable for every answer but 200, 404 and 410, and where none comes."""
    request = urllib.request.Request(url, headers={"Accept": accept, "User-Agent": "qwen-rig"},
                                     method="HEAD" if head else "GET")
    try:
        with urllib.request.urlopen(request, timeout=seconds) as answer:
            return Answer(200, answer.read(LARGEST_PAGE), answer.headers.get_content_type(), answer.url)
    except urllib.error.HTTPError as error:
        if error.code in (404, 410):
            return Answer(error.code, b"", "", url)
        raise Unreachable(f"HTTP {error.code}") from None
    except urllib.error.URLError as error:
        raise Unreachable(str(error.reason) or type(error.reason).__name__) from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise Unreachable(str(error) or type(error).__name__) from None


def private_to_host(url: str) -> bool:
    """Whether an address means another machine here than on the host: loopback, or a file."""
    parts = urlsplit(url)
    name = parts.hostname or ""
    return parts.scheme == "file" or name == "localhost" or name.startswith("127.") or name == "::1"


def bare(url: str) -> str:
    """The address without user and password, to be shown."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
