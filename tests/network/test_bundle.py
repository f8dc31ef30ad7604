"""A broken download goes on where it was, wrong bytes are kept nowhere, a bundle serves what it names and no more."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from qwen_rig import bundle
from qwen_rig.errors import RigError
from qwen_rig.inside import Checked
from qwen_rig.network import serve
from qwen_rig.network.archive import Archive
from qwen_rig.network.collect import repodata
from qwen_rig.network.fetch import Terms, fetch
from qwen_rig.network.web import Unreachable

from .desk import asked, login

BODY = bytes(range(256)) * 1000
SHA = hashlib.sha256(BODY).hexdigest()


@dataclass
class Site:
    """One file, whose sender hangs up after `cut` bytes each time; the ranges that were asked for."""

    cut: int = len(BODY)
    ranges: list[str] = field(default_factory=list)
    url: str = ""


@pytest.fixture
def site() -> Iterator[Site]:
    made = Site()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = self.headers.get("Range", "")
            made.ranges.append(asked)
            rest = BODY[int(asked[6:-1]) if asked else 0:]
            self.send_response(206 if asked else 200)
            self.send_header("Content-Length", str(len(rest)))
            self.end_headers()
            self.wfile.write(rest[:made.cut])

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    made.url = f"http://127.0.0.1:{server.server_address[1]}/file"
    yield made
    server.shutdown()
    server.server_close()


def test_a_download_that_breaks_goes_on_where_it_was(site: Site, tmp_path: Path) -> None:
    site.cut = 100_000
    assert fetch(site.url, tmp_path / "file", SHA, Terms(site.url)) == SHA
    assert (tmp_path / "file").read_bytes() == BODY
    assert site.ranges == ["", "bytes=100000-", "bytes=200000-"]
    fetch(site.url, tmp_path / "file", SHA, Terms(site.url))
    assert len(site.ranges) == 3, "what is here is not fetched again"


def test_one_that_broke_in_an_earlier_run_too(site: Site, tmp_path: Path) -> None:
    (tmp_path / "file.part").write_bytes(BODY[:5000])
    fetch(site.url, tmp_path / "file", SHA, Terms(site.url))
    assert site.ranges == ["bytes=5000-"] and (tmp_path / "file").read_bytes() == BODY


def test_several_runs_that_want_the_same_file_fetch_it_once(site: Site, tmp_path: Path) -> None:
    site.cut = 100_000
    with ThreadPoolExecutor(8) as pool:  # flock tells open files apart, not processes
        assert list(pool.map(lambda _: fetch(site.url, tmp_path / "file", SHA, Terms(site.url)), range(8))) == [SHA] * 8
    assert site.ranges == ["", "bytes=100000-", "bytes=200000-"]
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_what_no_hash_will_judge_is_never_continued(site: Site, tmp_path: Path) -> None:
    (tmp_path / "file.part").write_bytes(b"of another day")
    assert fetch(site.url, tmp_path / "file", None, Terms(site.url)) == SHA
    assert site.ranges == [""]


def test_wrong_bytes_are_kept_nowhere(site: Site, tmp_path: Path) -> None:
    with pytest.raises(Unreachable, match="is not the file that is wanted"):
        fetch(site.url, tmp_path / "file", "0" * 64, Terms(site.url))
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def made(tmp_path: Path) -> bundle.Bundle:
    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels" / "Some_Thing-1.0-py3-none-any.whl").write_bytes(BODY)
    (tmp_path / "secret").write_text("not in the manifest")
    bundle.write(tmp_path, "standin", "3.10",
                 {"wheels/Some_Thing-1.0-py3-none-any.whl": {"sha256": SHA, "bytes": len(BODY), "from": "x"}})
    return bundle.load(str(tmp_path))


def ask(made: bundle.Bundle, path: str, **headers: str) -> tuple[int, bytes]:
    """One request of a host that knows the token."""
    desk = serve.Desk(made, Archive(made.folder), Checked())
    status, _, body = asked(desk, path, Authorization=login(desk), **headers)
    return status, body


def test_it_serves_what_it_names_whole_and_in_part(made: bundle.Bundle) -> None:
    assert b'href="some-thing/"' in ask(made, "/simple/")[1]
    assert f"../../wheels/Some_Thing-1.0-py3-none-any.whl#sha256={SHA}".encode() in ask(made, "/simple/some-thing/")[1]
    file = "/wheels/Some_Thing-1.0-py3-none-any.whl"
    assert ask(made, file) == (200, BODY)
    assert ask(made, file, Range="bytes=300-302") == (206, BODY[300:303])
    assert ask(made, file, Range=f"bytes={len(BODY) - 1}-") == (206, BODY[-1:])


@pytest.mark.parametrize("path", ["/secret", "/wheels/../secret", "/%2e%2e/secret", "/manifest.json", "/simple/other/"])
def test_it_serves_nothing_else(made: bundle.Bundle, path: str) -> None:
    assert ask(made, path)[0] == 404


@pytest.mark.parametrize(("spoil", "said"), [
    (lambda folder: (folder / "manifest.json").unlink(), "has no manifest.json"),
    (lambda folder: (folder / "manifest.json").write_text("{"), "no bundle that this version can read"),
    (lambda folder: (folder / "manifest.json").write_text(json.dumps({"form": 9})), "no bundle that this version"),
    (lambda folder: next((folder / "wheels").iterdir()).unlink(), "has no Some_Thing"),
    (lambda folder: next((folder / "wheels").iterdir()).write_bytes(b""), "is not as long as it was"),
])
def test_a_spoilt_bundle_is_one_line(made: bundle.Bundle, spoil: object, said: str) -> None:
    spoil(made.folder)  # type: ignore[operator]
    bundle._load.cache_clear()
    with pytest.raises(RigError, match=said) as caught:
        bundle.load(str(made.folder))
    assert "\n" not in str(caught.value) and "qwen-rig bundle" in str(caught.value)


def test_the_channel_of_a_bundle_is_json_with_both_kinds_of_package() -> None:
    read = json.loads(repodata("noarch", {"a-1-0.conda": {"name": "a"}, "b-1-0.tar.bz2": {"name": "b"}}))
    assert read["packages"] == {"b-1-0.tar.bz2": {"name": "b"}}
    assert read["packages.conda"] == {"a-1-0.conda": {"name": "a"}}
    assert json.loads(repodata("noarch", {}))["packages"] == {}
