"""The page: what is on record, escaped, complete in itself; served to who knows its address, and to nobody else."""

from __future__ import annotations

import http.client
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from qwen_rig import cli
from qwen_rig.finetune import page, record, serving
from qwen_rig.finetune.record import Record

from .schema import held

EVIL = '<script>alert(1)</script>"\x1b[2J\u202e'


@pytest.fixture(autouse=True)
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Record:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    points = tuple({"step": n, "of": 400, "loss": 3 / n, "tokens_s": 5120} for n in range(1, 301))
    made = record.keep(Record("chats", record.new_id(), EVIL, "lab.yml", "/r", "2026-11-29T13:00:00+00:00",
                              state="running", model=EVIL, points=points,
                              data={"name": EVIL, "sha256": None, "bytes": 0, "samples": 3, "there": EVIL},
                              env={"path": "/e", "stack": "qwen3", "lock_sha256": None, "launch": "one", "busy": ""}))
    for name, more in (("one", points[:1]), ("none", ()), ("odd", ({"step": 1}, {"step": 2, "loss": "x"}))):
        record.keep(replace(made, name=name, points=more))
    return made


def test_the_page_is_complete_in_itself_and_escapes_what_others_wrote() -> None:
    text = page.page(5)
    assert "<script" not in text and "\x1b" not in text and "\u202e" not in text and "&lt;script&gt;" in text
    assert not re.search(r"""(src|href)=|@import|url\(|https?://""", text), "it needs nothing from elsewhere"
    assert "prefers-color-scheme:dark" in text and "width=device-width" in text
    assert "step 300 of 400" in text and text.count("<polyline") == 1 and "5,120 tokens/s" in text
    assert 'http-equiv="refresh"' in text and 'http-equiv="refresh"' not in page.page()


@pytest.fixture
def server() -> Iterator[serving.Server]:
    with serving.Server(0, page.page) as made:
        threading.Thread(target=made.serve_forever, daemon=True).start()
        yield made
        made.shutdown()


def test_only_the_address_with_the_token_gives_the_page(server: serving.Server) -> None:
    path = f"/{server.token}/"

    def asked(verb: str, path: str, host: str = f"127.0.0.1:{server.server_port}") -> http.client.HTTPResponse:
        connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=30)
        connection.request(verb, path, headers={"Host": host})
        return connection.getresponse()

    assert server.server_address[0] == "127.0.0.1" and len(server.token) >= 32
    good = asked("GET", path)
    assert good.status == 200 and b"chats" in good.read()
    assert "default-src 'none'" in good.headers["Content-Security-Policy"]
    for wrong in ("/", path[:-2] + "x/", path + "..", "/%2e%2e/", path + "?x"):
        answer = asked("GET", wrong)
        assert answer.status == 404 and b"chats" not in answer.read(), wrong
    assert asked("GET", path, "evil.example").status == 404, "a name that was made to lead here"
    for verb in ("POST", "PUT", "DELETE", "HEAD"):
        assert asked(verb, path).status == 501


def test_json_and_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["watch", "--json"]) == 0
    found = held(json.loads(capsys.readouterr().out), "watch")
    assert {each["name"] for each in found["runs"]} == {"chats", "one", "none", "odd"} and found["cards"] == []
    assert cli.main(["watch", "-o", str(tmp_path / "page.html")]) == 0
    assert (tmp_path / "page.html").stat().st_size > 2000
    capsys.readouterr()
    assert cli.main(["watch", "-o", str(tmp_path / "no" / "page.html")]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert cli.main(["watch", "--port", "70000"]) == 1
