"""What the controller fetches: a canary of its own network gets no request, whoever names it but the user's knob."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from qwen_rig import bundle, knobs
from qwen_rig.catalog.lock import Requirement
from qwen_rig.deploy.planning import make_plan
from qwen_rig.errors import RigError
from qwen_rig.network import address, preflight, web
from qwen_rig.network.address import NotAllowed, public
from qwen_rig.network.archive import Archive, Forbidden, Store
from qwen_rig.network.fetch import Terms, fetch
from qwen_rig.network.web import Unreachable
from qwen_rig.run.network import Network
from qwen_rig.run.tunnel import Tunnels
from tests.network.desk import asked, identity, login
from tests.plan.states import RTX5090, bare, context

SECRET = b"SECRET of the controller's own network"
Answer = Callable[[BaseHTTPRequestHandler], None]


class Server:
    """An HTTP server of the controller's network; `asked`: every request line that came; `dialled`: how often it was
    connected to."""

    def __init__(self, answer: Answer) -> None:
        self.asked: list[str] = []
        self.dialled = 0
        server = self

        class Http(ThreadingHTTPServer):
            daemon_threads = True

            def verify_request(self, request: Any, client_address: Any) -> bool:
                server.dialled += 1
                return True

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.asked.append(self.requestline)
                answer(self)

            do_HEAD = do_CONNECT = do_GET

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._http = Http(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True).start()
        self.port: int = self._http.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def secure(self) -> None:
        """By TLS from now on."""
        self._http.socket = identity().context.wrap_socket(self._http.socket, server_side=True)
        self.url = self.url.replace("http:", "https:")

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()


def tell(handler: BaseHTTPRequestHandler, status: int = 200, body: bytes = SECRET, **headers: str) -> None:
    handler.send_response(status)
    for name, value in {"Content-Length": str(len(body)), **headers}.items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(b"" if handler.command == "HEAD" else body)


@pytest.fixture
def canary() -> Iterator[Server]:
    """What nobody may ask."""
    made = Server(tell)
    yield made
    made.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    bundle.write(tmp_path, "standin", "3.10", {})
    bundle._load.cache_clear()
    return tmp_path


PRIVATE = """0.0.0.0 10.0.0.1 100.64.0.1 100.100.100.200 127.0.0.1 127.255.255.254 169.254.169.254 172.16.0.1
172.31.255.1 192.0.0.192 192.0.2.1 192.168.1.1 198.18.0.1 198.51.100.1 203.0.113.1 224.0.0.1 239.255.255.250 240.0.0.1
255.255.255.255 :: ::1 ::127.0.0.1 ::ffff:127.0.0.1 ::ffff:10.0.0.1 ::ffff:169.254.169.254 64:ff9b::7f00:1
64:ff9b::a9fe:a9fe 64:ff9b:1::1 100::1 2001:0:4136:e378:8000:63bf:3fff:fdd2 2001:db8::1 2002:7f00:1:: 2002:a9fe:a9fe::1
fc00::1 fd00:ec2::254 fe80::1 fe80::1%lo fec0::1 ff02::1 ff0e::1 localhost 127.1"""


def test_what_is_public_and_what_is_not() -> None:
    assert [text for text in PRIVATE.split() if public(text)] == []
    open_ = "8.8.8.8 140.82.121.3 2606:4700::1111 ::ffff:8.8.8.8 64:ff9b::808:808 2002:808:808::1"
    assert [text for text in open_.split() if not public(text)] == []


def _printed(canary: Server) -> list[str]:
    """What a host may print as its apt sources, to have the canary asked."""
    at, port = canary.url, canary.port
    return [f"{at}/debian stable", f"{at}/admin/secret# stable", f"{at}/admin/secret? stable", f"{at}/debian/# stable",
            f"http://localhost:{port}/debian stable", f"http://LOCALHOST.:{port}/debian stable",
            f"http://2130706433:{port}/debian stable", f"http://0x7f.1:{port}/d stable",
            f"http://[::1]:{port}/d stable",
            f"http://[::ffff:127.0.0.1]:{port}/d stable", f"http://user:pw@127.0.0.1:{port}/d stable",
            f"http://named.test@127.0.0.1:{port}/d stable", f"http://named.test/../..@127.0.0.1:{port}/ stable",
            "http://169.254.169.254/latest stable", f"https://127.0.0.1:{port}/debian stable", "file:///etc stable x",
            f"http://127.0.0.1:{port}/named stable/", f"http://named.test\\@127.0.0.1:{port}/d stable",
            f"http://named.test:80#@127.0.0.1:{port}/d stable", f"ftp://127.0.0.1:{port}/d stable",
            f"gopher://127.0.0.1:{port}/_x stable", "http:/debian stable", "\x1b]52;c;x\x07 stable"]


def test_what_a_host_prints_opens_nothing(canary: Server, folder: Path) -> None:
    """ssrf.py's way in: the host's own apt sources were the list of what was handed on."""
    ctx = context(bare(RTX5090), "standin", python="3.10", bundle=str(folder), source_apt="http://named.test/debian")
    host: Any = SimpleNamespace(name="lab-01", connector=SimpleNamespace(client=None))
    tunnels = Tunnels()
    network, plan = Network(lambda: tunnels), make_plan(ctx)
    desk = tunnels.desk(host, str(folder))
    for line in _printed(canary):
        try:
            network.hand_on(host, ctx, plan, f"{line}\n")
        except RigError as error:
            assert str(error).isprintable(), line
        else:
            assert len(line.split()) != 2, f"{line} was passed over, and is no source"
        uri = line.split()[0]
        for path in (uri.replace("://", "/", 1), uri.replace("://", "/", 1).replace("#", "%23").replace("?", "%3f")):
            for inner in ("/dists/x", "/dists/stable/InRelease", "dists/x", "/a.deb"):
                quoted = "".join(each if "!" <= each <= "~" else "%1b" for each in f"/apt/{path}{inner}")
                assert asked(desk, quoted, Authorization=login(desk))[0] in (400, 403), quoted
    assert canary.asked == [] and canary.dialled == 0


def test_one_hosts_knob_opens_nothing_for_another(folder: Path) -> None:
    """A lab host may fetch from the user's own network; a rented one beside it, from the same bundle, may not."""
    inner = Server(tell)
    store = Store(folder)
    lab, rented = Archive(folder, store), Archive(folder, store)
    lab.allow([f"{inner.url}/debian"], named=True)
    path = f"{inner.url.replace('://', '/')}/debian/dists/stable/InRelease"
    assert lab.file(path).bytes == len(SECRET)
    with pytest.raises(Forbidden):
        rented.file(path)
    inner.close()


@pytest.mark.parametrize("inner", ["dists/..%2f..%2fsecret", "dists/%2e%2e/secret", "dists/x%00", "dists/x%23y",
                                   "dists/x%3fy", "dists/x?y", "dists//x", "dists/%2fx", "dists/x%5cy", "dists/x%0ay",
                                   "x%2f..%2fa.deb"])
def test_nothing_is_quoted_so_that_the_archive_reads_another_path(inner: str, folder: Path) -> None:
    site = Server(tell)
    archive = Archive(folder)
    archive.allow([f"{site.url}/debian"], named=True)
    with pytest.raises(Forbidden):
        archive.file(f"{site.url.replace('://', '/')}/debian/{inner}")
    assert site.asked == []
    site.close()


def _targets(canary: Server) -> list[str]:
    """Where a redirecting source sends, to have the canary asked."""
    port = canary.port
    return [f"{canary.url}/latest/meta-data", f"//127.0.0.1:{port}/x", f"http://localhost:{port}/x",
            f"http://127.1:{port}/x", f"http://0x7f000001:{port}/x", f"http://[::ffff:127.0.0.1]:{port}/x",
            f"https://127.0.0.1:{port}/x", f"http://user@127.0.0.1:{port}/x", "file:///etc/hostname",
            f"ftp://127.0.0.1:{port}/x", "data:,x"]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_leads_to_no_other_private_server(status: int, canary: Server, folder: Path, tmp_path: Path,
                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    """The user named this server, which may be private; where it sends is another matter. By every way of fetching."""
    monkeypatch.setattr(preflight, "notes", lambda: tmp_path / "kept")
    monkeypatch.setattr(preflight, "private_to_host", lambda url: False)
    monkeypatch.setattr("qwen_rig.network.fetch.TRIES", 1)
    for target in _targets(canary):
        site = Server(lambda handler, target=target: tell(handler, status, b"", Location=target))  # type: ignore[misc]
        archive = Archive(folder)
        archive.allow([f"{site.url}/debian"], named=True)
        with pytest.raises(Unreachable):
            web.get(f"{site.url}/x", 5, own=site.url)
        with pytest.raises(Unreachable):
            fetch(f"{site.url}/x", tmp_path / "got", None, Terms(site.url, plain=True))
        with pytest.raises(Unreachable):
            archive.file(f"{site.url.replace('://', '/')}/debian/dists/stable/InRelease")
        found = preflight.look(f"{site.url}/simple", {"six": Requirement("1", (), None)}, "3.10", own=True)
        assert found.unchecked and not found.found
        assert len(site.asked) == 4 and not (tmp_path / "got").exists()
        site.close()
    assert canary.asked == [] and canary.dialled == 0


def test_a_redirect_on_the_same_server_is_followed(tmp_path: Path) -> None:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        if handler.path.endswith("/"):
            tell(handler)
        else:
            tell(handler, 301, b"", Location=f"{handler.path}/")

    site = Server(answer)
    assert web.get(f"{site.url}/simple/six", 5, own=f"{site.url}/simple").body == SECRET
    site.close()


def test_an_index_that_only_the_host_names_is_not_asked_on_a_private_address(canary: Server, tmp_path: Path,
                                                                            monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "notes", lambda: tmp_path / "kept")
    monkeypatch.setattr(preflight, "private_to_host", lambda url: False)
    wanted = {"six": Requirement("1", (), None)}
    for index in (f"{canary.url}/simple", f"https://127.0.0.1:{canary.port}/simple", f"https://localhost:{canary.port}/",
                  f"https://named.test@127.0.0.1:{canary.port}/"):
        assert preflight.look(index, wanted, "3.10").unchecked
    assert canary.asked == [] and canary.dialled == 0


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[list[str]]]:
    """What each name is looked up as: a list for each time, the last for all times after."""
    table: dict[str, list[list[str]]] = {}

    def look_up(host: str, port: int, *rest: Any, **more: Any) -> list[Any]:
        answers = table[host]
        found = answers.pop(0) if len(answers) > 1 else answers[0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, port)) for each in found]

    monkeypatch.setattr(address.socket, "getaddrinfo", look_up)
    return table


def test_a_name_is_looked_up_once_and_what_was_checked_is_connected_to(
        names: dict[str, list[list[str]]], canary: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    names["rebind.test"] = [["8.8.8.8"], ["127.0.0.1"]]  # public when it is checked, private when it is connected to
    names["mixed.test"], names["inner.test"] = [["127.0.0.1", "8.8.8.8"]], [["127.0.0.1"]]
    dialled: list[Any] = []

    def connect(self: socket.socket, place: Any) -> None:
        dialled.append(place)
        raise ConnectionRefusedError

    with monkeypatch.context() as patch:
        patch.setattr(address.socket, "socket", type("Socket", (socket.socket,), {"connect": connect}))
        for host in ("rebind.test", "mixed.test", "inner.test"):
            with pytest.raises(Unreachable):
                web.get(f"https://{host}:{canary.port}/", 5)
        with pytest.raises(Unreachable, match=r"127\.0\.0\.1\) is no public address: only one that a knob names"):
            web.get(f"https://inner.test:{canary.port}/", 5)
    assert dialled == [("8.8.8.8", canary.port)] * 2
    assert web.get(f"http://inner.test:{canary.port}/", 5, own=f"http://inner.test:{canary.port}").body == SECRET


def test_by_a_proxy_too_nothing_private_is_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The proxy is the user's, and may be private; what is asked of it is judged by its name."""
    proxy = Server(lambda handler: tell(handler, 200 if handler.command == "GET" else 403))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, proxy.url)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    for host in ("127.0.0.1", "127.1", "0x7f000001", "2130706433", "localhost", "x.localhost", "db", "[::1]",
                 "10.0.0.1", "[::ffff:10.0.0.1]", "169.254.169.254", "localhost.",
                 "metadata.google.internal", "printer.local"):
        with pytest.raises(Unreachable):
            web.get(f"https://{host}/", 5)
        with pytest.raises(NotAllowed):
            web.opened(f"http://{host}/dists/x", 5, {}, plain=True)
    assert proxy.asked == [] and proxy.dialled == 0
    with pytest.raises(Unreachable):
        web.get("https://named.test/", 5)
    assert web.get("http://db/simple/", 5, own="http://db/simple").body == SECRET
    assert proxy.asked == ["CONNECT named.test:443 HTTP/1.0", "GET http://db/simple/ HTTP/1.1"] or \
        proxy.asked == ["CONNECT named.test:443 HTTP/1.1", "GET http://db/simple/ HTTP/1.1"]
    proxy.close()


@pytest.mark.parametrize("url", ["http://8.8.8.8/x", "http://named.test/x", "ftp://named.test/x",
                                 "file:///etc/hostname", "data:,x", "x", "http:///x", "https://",
                                 "https://x:99999/", "//named.test/x"])
def test_what_is_not_https_is_the_users_knob_or_nothing(url: str) -> None:
    with pytest.raises(Unreachable):
        web.get(url, 5)


def test_no_host_fills_this_machines_disk(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A source without end, more files than any install takes, more bytes than those."""
    from dataclasses import replace

    from qwen_rig.network import archive as module

    def endless(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        try:
            while True:
                handler.wfile.write(b"x" * 65536)
        except OSError:
            pass

    limits = replace(module.load_limits(), serve_largest_index=1 << 20, serve_run_files=5, serve_run_bytes=100)
    monkeypatch.setattr(module, "load_limits", lambda: limits)
    site, small = Server(endless), Server(tell)
    archive = Archive(folder)
    archive.allow([f"{site.url}/debian", f"{small.url}/debian"], named=True)
    with pytest.raises(Unreachable, match="more than 1048576 bytes"):
        archive.file(f"{site.url.replace('://', '/')}/debian/dists/stable/InRelease")
    assert not [path for path in folder.rglob("InRelease*") if path.is_file()]
    said = set()
    for number in range(10):
        try:
            archive.file(f"{small.url.replace('://', '/')}/debian/dists/{number}/InRelease")
        except Forbidden as error:
            said.add(str(error))
    assert said == {module.TOO_MUCH} and len(small.asked) == 3, "three of 38 bytes are more than 100"
    site.close()
    small.close()


@pytest.mark.parametrize("value", ["ftp://x/debian", "x", "http://x/debian?y", "http://x/debian#y", "http://u:p@x/debian",
                                   "http://x/ok http://x/de;bian", "file:///debian", ["http://x/ok", 7], 7, "", []])
def test_the_knob_takes_archives_alone(value: Any) -> None:
    with pytest.raises(RigError) as caught:
        knobs.check("source_apt", value)
    assert "\n" not in str(caught.value)


def test_the_knob_is_a_text_or_a_list() -> None:
    assert knobs.check("source_apt", ["http://a.test/debian", "https://b.test/ubuntu/"]) == \
        "http://a.test/debian https://b.test/ubuntu/"


def test_https_is_fetched_by_the_environments_certificates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = Server(tell)
    site.secure()
    (tmp_path / "ca.pem").write_text(identity().authority)
    with pytest.raises(Unreachable, match="certificate verify failed"):
        web.get(f"{site.url}/x", 5, own=site.url)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    assert web.get(f"{site.url}/x", 5, own=site.url).body == SECRET
    with pytest.raises(Unreachable, match="no public address"):
        web.get(f"{site.url}/x", 5)
    site.close()
