"""Who is answered by a bundle's tunnel, and for how long: whoever says the token of this host and run, to its end."""

from __future__ import annotations

import base64
import os
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from qwen_rig import bundle, program
from qwen_rig.errors import RigError
from qwen_rig.inside import Checked
from qwen_rig.network import secure, serve
from qwen_rig.network.archive import Archive
from qwen_rig.run.command_text import shown
from qwen_rig.run.job import JobCommand
from qwen_rig.run.job_protocol import Job
from qwen_rig.run.tunnel import Tunnels
from tests import HANG_S, until
from tests.network.desk import asked, connected, identity, login, secured

CANARY = b"only for whoever says the token"


@pytest.fixture
def made(tmp_path: Path) -> Path:
    import hashlib

    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels" / "x-1-py3-none-any.whl").write_bytes(CANARY)
    row = {"sha256": hashlib.sha256(CANARY).hexdigest(), "bytes": len(CANARY)}
    bundle.write(tmp_path, "standin", "3.10", {"wheels/x-1-py3-none-any.whl": row})
    bundle._load.cache_clear()
    return tmp_path


@pytest.fixture
def desk(made: Path) -> serve.Desk:
    return serve.Desk(bundle.load(str(made)), Archive(made), Checked())


def _basic(text: str) -> str:
    return "Basic " + base64.b64encode(text.encode()).decode()


def test_without_the_token_nothing_is_told(desk: serve.Desk, made: Path) -> None:
    other = serve.Desk(desk.bundle, Archive(made), Checked())
    right = login(desk)
    wrong = ["", "Basic", "Basic ", _basic("qwen-rig:"), _basic("qwen-rig"), _basic(f":{desk.token}"), login(other),
             f"Bearer {desk.token}", right[:-1], f"{right}x", right.replace("Basic", "Digest"), _basic(desk.token),
             "Basic \xff\xff", _basic(f"qwen-rig:{desk.token[:-1]}"), _basic(f"qwen-rig:{desk.token}\n")]
    assert len(desk.token) >= 32 and desk.token != other.token
    for path in ("/wheels/x-1-py3-none-any.whl", "/simple/", "/simple/x/", "/apt/http/127.0.0.1:9/dists/x", "/nothing"):
        for method in ("GET", "HEAD"):
            for word in wrong:
                status, _, body = asked(desk, path, method, Authorization=word)
                assert status == 401 and CANARY not in body and b"x-1" not in body, (path, word)
        for method in ("POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE"):
            status, _, body = asked(desk, path, method, Authorization=right)
            assert status == 501 and CANARY not in body
    assert asked(desk, f"/x?{desk.token}")[0] == 401, "the token is said in one place alone"
    assert asked(desk, "/wheels/x-1-py3-none-any.whl", Authorization=right) == (200, "OK", CANARY)


def test_an_impostor_is_told_no_token(desk: serve.Desk) -> None:
    """Who takes the port has no certificate of the run: the client never comes to say anything."""
    heard: list[bytes] = []
    for context in (secure.identity().context, None):  # of another run; and plain HTTP
        here, there = socket.socketpair()

        def impostor(there: socket.socket = there, context: ssl.SSLContext | None = context) -> None:
            try:
                heard.append((context.wrap_socket(there, server_side=True) if context else there).recv(1 << 16))
                there.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\ncanary")
            except OSError:
                pass

        threading.Thread(target=impostor, daemon=True).start()
        with pytest.raises(OSError):
            secured(here)
        here.close()
    assert not any(b"GET" in each or b"Authorization" in each for each in heard)


def test_the_certificate_is_good_for_this_alone() -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        context = ssl.create_default_context(cadata=identity().authority)
        here, there = socket.socketpair()
        threading.Thread(target=lambda: _handshake(there), daemon=True).start()
        context.wrap_socket(here, server_hostname="pypi.test")


def _handshake(there: socket.socket) -> None:
    try:
        secure.Stream(there, identity().context, HANG_S)
    except OSError:
        there.close()


def test_it_ends_with_the_run(made: Path) -> None:
    """Connections that are open are hung up, new ones are not taken, no forward is made any more."""
    host: Any = SimpleNamespace(name="h", connector=SimpleNamespace(client=None))
    tunnels = Tunnels()
    way = tunnels.way(host, str(made))
    token, _, authority = way.secret.partition("\n")
    port = int(way.address.rpartition(":")[2])
    assert tunnels.way(host, str(made)) == way and way.address.startswith("https://127.0.0.1:")
    assert token not in repr(way) and token not in repr(tunnels.desk(host, str(made)))

    def connect() -> ssl.SSLSocket:
        return secured(socket.create_connection(("127.0.0.1", port), HANG_S), authority)

    request = (b"GET /wheels/x-1-py3-none-any.whl HTTP/1.1\r\nHost: x\r\nAuthorization: "
               + _basic(f"qwen-rig:{token}").encode() + b"\r\n\r\n")
    with connect() as before:
        before.sendall(request)
        assert before.recv(5) == b"HTTP/"
        tunnels.close()
        with pytest.raises(OSError):
            while True:
                before.sendall(request)
                if not before.recv(1 << 16):
                    raise OSError("hung up")
    with pytest.raises(OSError):
        connect()
    with pytest.raises(RigError, match="the run has ended"):
        tunnels.way(host, str(made))


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    limits = replace(serve.load_limits(), serve_connections=3, serve_begin_s=1)
    monkeypatch.setattr(serve, "load_limits", lambda: limits)
    yield


def test_who_says_nothing_holds_no_place_for_long(desk: serve.Desk, few: None) -> None:
    """Silent ones, ones that trickle, and ones with TLS but no token: all are hung up, and the place is free again."""
    silent, trickling, nameless = connected(desk), connected(desk), secured(connected(desk))
    with pytest.raises(OSError):
        secured(connected(desk)).sendall(b"a fourth")
    nameless.sendall(b"GET /simple/ HTTP/1.1\r\n")
    stop = threading.Event()

    def trickle() -> None:
        for each in b"\x16\x03\x01\x01\x00" * 1000:
            if stop.wait(0.05):
                return
            try:
                trickling.sendall(bytes([each]))
            except OSError:
                return

    threading.Thread(target=trickle, daemon=True).start()
    until(lambda: desk._open == set())
    stop.set()
    assert asked(desk, "/wheels/x-1-py3-none-any.whl", Authorization=login(desk))[0] == 200
    for each in (silent, trickling, nameless):
        each.close()


@pytest.mark.parametrize("asked_for", ["bytes=-0", "bytes=5-2", "bytes=99-", "bytes=" + "9" * 5000 + "-", "bytes=--1",
                                       "bytes=0-0,2-3", "lines=1-2", "bytes=\u0661-\u0662"])
def test_a_range_that_makes_no_sense_is_all_of_it(asked_for: str, desk: serve.Desk) -> None:
    word = asked_for.encode().decode("latin-1")
    assert asked(desk, "/wheels/x-1-py3-none-any.whl", Authorization=login(desk), Range=word)[2] == CANARY


def test_what_is_secret_is_shown_to_nobody() -> None:
    call = program.load("shell/network.sh")(proxy="direct", secret_tunnel="TOKEN\nauthority")
    command = JobCommand(Job("env", "Env", call, 60))
    for text in (str(call), repr(call), shown(command), shown(command, whole=False), repr(command), repr(command.job)):
        assert "TOKEN" not in text
    assert "secret_tunnel='***'" in str(call) or "secret_tunnel=***" in str(call)


CLIENTS = """proxies
stat -c '%a %n' "$tunnel" "$tunnel"/* "$tunnel"/.curlrc
export -p
(outside_tunnel && export -p | sed 's/^/outside /')
cat "$tunnel/netrc"
no_tunnel
[ ! -e "$tunnel" ] && echo gone
"""


@pytest.mark.parametrize("shell", [["dash"], ["bash", "--posix"]])  # as sh
def test_on_the_host_the_token_lies_in_files_of_ones_own(shell: list[str], tmp_path: Path) -> None:
    made = program.Program(program.load("shell/network.sh").text + CLIENTS)
    call = made(proxy="direct", secret_tunnel="TOKEN\npem\n")
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "SSL_CERT_FILE": "/own.pem",
                   "NETRC": "/own netrc"}
    text = call.text.replace("/var/lib/qwen-rig", f"{tmp_path}/var")  # where root has it
    done = subprocess.run([*shell, "-c", text], input=call.stdin(), text=True, capture_output=True, timeout=HANG_S,
                          env=environment)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    lines = done.stdout.splitlines()
    modes = {line.split()[0] for line in lines if "/tunnels/" in line and line[:1] in "67"}
    assert modes == {"700", "600"}
    exported = [line for line in lines if line.startswith(("export ", "declare "))]
    assert not any("TOKEN" in line for line in exported) and any("PIP_CERT" in line for line in exported)
    outside = [line for line in lines if line.startswith("outside ")]
    assert any("/own netrc" in line for line in outside) and any("SSL_CERT_FILE" in line and "/own.pem" in line
                                                                 for line in outside)
    assert not any("PIP_CERT" in line or "authority.pem" in line for line in outside)
    assert "machine 127.0.0.1 login qwen-rig password TOKEN" in lines and lines[-1] == "gone"


TOOLS = {"curl": ["curl"], "wget": ["wget"], "apt-helper": []}


@pytest.mark.parametrize("tool", TOOLS)
def test_a_download_by_whatever_is_there(tool: str, made: Path, tmp_path: Path) -> None:
    """As the real programs do it: they take what the run serves, and nothing of who has another certificate."""
    if not (Path("/usr/lib/apt/apt-helper").exists() if tool == "apt-helper" else shutil.which(tool)):
        pytest.skip(f"there is no {tool} here")
    host: Any = SimpleNamespace(name="h", connector=SimpleNamespace(client=None))
    tunnels = Tunnels()
    way = tunnels.way(host, str(made))
    path = tmp_path / "bin"
    path.mkdir()
    for name in ("sh", "id", "mkdir", "mktemp", "find", "rm", "cat", "base64", *TOOLS[tool]):
        (path / name).symlink_to(shutil.which(name) or "")
    library = program.load("shell/network.sh").text.replace("/var/lib/qwen-rig", f"{tmp_path}/var")
    program_ = program.Program(f"{library}trap no_tunnel EXIT\nproxies\n"
                               'download "$address/wheels/x-1-py3-none-any.whl" "$to"\n')

    def downloaded(to: str, secret: str) -> bytes:
        call = program_(proxy="direct", secret_tunnel=secret, address=way.address, to=str(tmp_path / to))
        done = subprocess.run(["/bin/sh", "-c", call.text], input=call.stdin(), text=True, capture_output=True,
                              timeout=HANG_S, env={"PATH": str(path), "HOME": str(tmp_path)})
        assert way.secret.partition("\n")[0] not in done.stdout + done.stderr
        assert not list((tmp_path / "var" / "tunnels").glob("*")) if os.geteuid() == 0 else True
        return (tmp_path / to).read_bytes() if done.returncode == 0 else b""

    assert downloaded("good", way.secret) == CANARY
    token, _, authority = way.secret.partition("\n")
    assert downloaded("impostor", f"{token}\n{secure.identity().authority}") == b""
    assert downloaded("nobody", f"{'x' * 43}\n{authority}") == b""
    tunnels.close()


def test_every_program_that_goes_by_the_tunnel_leaves_nothing_of_it() -> None:
    root = Path(program.__file__).parents[1]
    users = [path for path in (*root.glob("deploy/*/*.sh"), *root.glob("qwen_rig/**/*.sh"))
             if any(line.strip() == "proxies" for line in path.read_text().splitlines())]
    assert len(users) >= 8
    for path in users:
        lines = path.read_text().splitlines()
        assert any(line.startswith("trap ") and ("no_tunnel" in line or "leave" in line) for line in lines), path
