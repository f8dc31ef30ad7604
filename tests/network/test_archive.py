"""apt's archives handed on: what may be asked for, what is fetched once, and that false bytes are kept nowhere."""

from __future__ import annotations

import hashlib
import lzma
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from qwen_rig.inside import Checked, Refused
from qwen_rig.network.archive import Archive, Forbidden, Found
from qwen_rig.network.web import Unreachable
from qwen_rig.program import load

DEB = b"a package" * 1000
SUM = hashlib.sha256(DEB).hexdigest()
LIST = lzma.compress(f"Package: other\nSHA256: {'0' * 64}\nFilename: pool/o/other.deb\n\n"
                     f"Package: one\nFilename: pool/o/one.deb\nSHA256: {SUM}\n\n".encode())
BY_HASH = f"dists/stable/main/binary-amd64/by-hash/SHA256/{hashlib.sha256(LIST).hexdigest()}"


class Site:
    """A distribution's archive at /debian; `files` can be changed, `asked` counts."""

    def __init__(self) -> None:
        self.files = {"/debian/dists/stable/InRelease": b"signed", f"/debian/{BY_HASH}": LIST,
                      "/debian/pool/o/one.deb": DEB, "/debian/pool/o/odd%2bname.deb": DEB, "/secret": b"no"}
        self.asked: Counter[str] = Counter()
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                site.asked[self.path] += 1
                body = site.files.get(self.path)
                self.send_response(404 if body is None else 200)
                self.send_header("Content-Length", str(len(body or b"")))
                self.end_headers()
                self.wfile.write(body or b"")

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.base = f"http://127.0.0.1:{self.server.server_address[1]}/debian"
        self.path = self.base.replace("://", "/")

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def site() -> Iterator[Site]:
    made = Site()
    yield made
    made.close()


def run_of(site: Site, folder: Path) -> Archive:
    """The archives as one run of the program has them."""
    made = Archive(folder)
    made.allow([site.base, "cdrom:[Debian]/", "mirror+file:/etc/list"], named=True)
    return made


def read(folder: Path, found: Found) -> bytes:
    """The content as it would be served."""
    with Checked().opened(folder, found.path, found.sha256, found.bytes) as content:
        return content.piece(0, found.bytes)


def test_an_index_once_a_run_a_package_once_for_ever(site: Site, tmp_path: Path) -> None:
    for run in (1, 2):
        archive = run_of(site, tmp_path)
        for _ in range(3):  # as many hosts
            for name in ("dists/stable/InRelease", BY_HASH, "pool/o/one.deb"):
                assert (tmp_path / archive.file(f"{site.path}/{name}").path).is_file()
        assert site.asked == {"/debian/dists/stable/InRelease": run, f"/debian/{BY_HASH}": 1,
                              "/debian/pool/o/one.deb": 1}
    assert read(tmp_path, archive.file(f"{site.path}/pool/o/one.deb")) == DEB
    assert archive.file(f"{site.path}/pool/o/odd%2bname.deb").path.endswith("/odd+name.deb"), "quoted as apt quotes it"


def test_other_bytes_than_the_index_names_are_kept_nowhere(site: Site, tmp_path: Path) -> None:
    archive = run_of(site, tmp_path)
    archive.file(f"{site.path}/{BY_HASH}")
    site.files["/debian/pool/o/one.deb"] = b"x" * len(DEB)
    with pytest.raises(Unreachable, match="is not the file that is wanted"):
        archive.file(f"{site.path}/pool/o/one.deb")
    assert not [path for path in tmp_path.rglob("one.deb*")]
    site.files["/debian/pool/o/one.deb"] = DEB
    kept = archive.file(f"{site.path}/pool/o/one.deb")
    (tmp_path / kept.path).write_bytes(b"spoilt")
    with pytest.raises(Refused):
        read(tmp_path, archive.file(f"{site.path}/pool/o/one.deb"))
    assert read(tmp_path, run_of(site, tmp_path).file(f"{site.path}/pool/o/one.deb")) == DEB, "a later run looks again"


@pytest.mark.parametrize("path", ["secret", "debian/../secret", "debian/%2e%2e/secret", "debian/pool/o/one.txt",
                                  "debian/", "debian", "other/dists/stable/InRelease"])
def test_nothing_but_what_apt_fetches_from_an_allowed_archive(path: str, site: Site, tmp_path: Path) -> None:
    host = site.path.removesuffix("/debian")
    with pytest.raises(Forbidden):
        run_of(site, tmp_path).file(f"{host}/{path}")
    assert not site.asked and not list(tmp_path.iterdir())
    for other in ("file/etc/passwd", "ftp/x/dists/InRelease", "http/169.254.169.254/latest/Release"):
        with pytest.raises(Forbidden):
            run_of(site, tmp_path).file(other)


def test_without_a_way_out_the_last_indexes_are_good_enough(site: Site, tmp_path: Path) -> None:
    run_of(site, tmp_path).file(f"{site.path}/dists/stable/InRelease")
    archive = run_of(site, tmp_path)
    del site.files["/debian/dists/stable/InRelease"]
    with pytest.raises(Unreachable) as gone:
        archive.file(f"{site.path}/dists/stable/InRelease")
    assert gone.value.status == 404, "that it is gone is an answer"
    site.close()
    assert read(tmp_path, archive.file(f"{site.path}/dists/stable/InRelease")) == b"signed"
    with pytest.raises(Unreachable):
        archive.file(f"{site.path}/pool/o/one.deb")


@pytest.mark.parametrize(("line", "becomes"), [
    ("deb http://deb.test/debian stable main", "deb AT/http/deb.test/debian stable main"),
    ("deb [arch=amd64 signed-by=/k.gpg] https://x.test/a/ /", "deb [arch=amd64 signed-by=/k.gpg] AT/https/x.test/a/ /"),
    ("URIs: http://a.test/ubuntu https://b.test:8080/c", "URIs: AT/http/a.test/ubuntu AT/https/b.test:8080/c"),
    ("URIs:https://a.test/", "URIs:AT/https/a.test/"),
    ("  http://folded.test/ubuntu", "  AT/http/folded.test/ubuntu"),
    ("deb mirror+https://m.test/list stable main", "deb mirror+https://m.test/list stable main"),
    ("deb cdrom:[Debian]/ stable main", "deb cdrom:[Debian]/ stable main"),
])
def test_apt_s_sources_are_sent_by_way_of_the_bundle(line: str, becomes: str) -> None:
    redirected = f"{load('shell/apt.sh').text}\nredirected http://127.0.0.1:20001/apt"
    done = subprocess.run(["sh", "-euc", redirected], input=line, text=True, capture_output=True, check=True)
    assert done.stdout == becomes.replace("AT", "http://127.0.0.1:20001/apt")
