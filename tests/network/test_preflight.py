"""The controller's look-up at an index, against real HTTP on loopback."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from qwen_rig.catalog.lock import Requirement
from qwen_rig.deploy.planning import make_plan
from qwen_rig.network import index, preflight
from qwen_rig.network.index import File
from qwen_rig.run.lookups import Lookups
from tests.plan.states import RTX5090, bare, context


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def locked(version: str, *files: str) -> Requirement:
    return Requirement(version, tuple(f"sha256:{sha(file)}" for file in files), None)


@dataclass
class Site:
    """Pages by path, as (media type, text), and what was asked for."""

    pages: dict[str, tuple[str, str]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    url: str = ""


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Site]:
    made = Site()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            made.asked.append(self.path)
            kind, text = made.pages.get(self.path, ("", ""))
            self.send_response(200 if kind else 404)
            self.send_header("Content-Type", kind)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    made.url = f"http://127.0.0.1:{server.server_address[1]}/simple"
    monkeypatch.setattr(preflight, "notes", lambda: tmp_path / "kept")
    monkeypatch.setattr(preflight, "private_to_host", lambda url: False)  # this index is on loopback for the test only
    yield made
    server.shutdown()
    server.server_close()


def page(*files: str, fragment: bool = True) -> tuple[str, str]:
    links = "".join(f'<a href="../../f/{file}{"#sha256=" + sha(file) if fragment else ""}">{file}</a>\n'
                    for file in files)
    return "text/html", f"<html>{links}</html>"


def test_what_is_there_what_is_missing_and_what_has_other_bytes(site: Site) -> None:
    site.pages = {
        "/simple/six/": page("six-1.17.0-py2.py3-none-any.whl"),
        "/simple/idna/": page("idna-3.9-py3-none-any.whl"),
        "/simple/click/": page("click-8.1.8-py3-none-any.whl"),
    }
    wanted = {"six": locked("1.17.0", "six-1.17.0-py2.py3-none-any.whl"), "idna": locked("3.10", "x"),
              "click": locked("8.1.8", "the true bytes"), "attrs": locked("25.3.0", "y")}
    found = preflight.look(site.url, wanted, "3.10", own=True)
    assert found.found["six"].url == f"{site.url.removesuffix('/simple')}/f/six-1.17.0-py2.py3-none-any.whl"
    assert found.missing == {"idna": "no 3.10", "click": "other bytes than the lock's", "attrs": "404"}
    assert found.unchecked is None


def test_what_no_lock_holds_is_looked_for_by_version_or_by_name_and_must_fit_the_python(site: Site) -> None:
    wheel = "{}-cp310-cp310-manylinux_2_28_x86_64.whl".format
    site.pages = {
        "/simple/torch/": page(wheel("torch-2.7.1%2Bcu128"), wheel("torch-2.8.0%2Bcu128"), fragment=False),
        "/simple/torchvision/": page(wheel("torchvision-0.25.0.dev20260101%2Bcu128")),
        "/simple/torchaudio/": page(wheel("torchaudio-2.8.0%2Bcu126")),
    }
    named = Requirement("2.8.0+cu128", (), None)
    wanted = {"torch": named, "torchvision": Requirement("", (), None), "torchaudio": named}
    found = preflight.look(site.url, wanted, "3.10", own=True)
    assert {name: file.name for name, file in found.found.items()} == {
        "torch": wheel("torch-2.8.0+cu128"), "torchvision": wheel("torchvision-0.25.0.dev20260101+cu128")}
    assert found.missing == {"torchaudio": "none for Python 3.10"}
    assert sorted(preflight.look(site.url, wanted, "3.11", own=True).missing) == sorted(wanted)


def test_torch_from_an_index_of_its_own_is_looked_for_there_before_a_host_is_touched(
        site: Site) -> None:
    def told(stack: str, **knobs: Any) -> tuple[list[str], list[str]]:
        ctx = context(bare(RTX5090), stack, accept_unlocked_torch=True, **knobs)
        refused, said = Lookups()._torch_source(ctx, make_plan(ctx))
        return [f"{row.what}; {row.remedy}" for row in refused], said

    wheel = "{}-cp310-cp310-manylinux_2_28_x86_64.whl".format
    assert told("guide") == ([], []), "all is in the lock"
    site.pages = {"/simple/torch/": page(wheel("torch-2.8.0%2Bcu128")),
                  "/simple/torchvision/": page(wheel("torchvision-0.23.0%2Bcu128"))}
    lacks = f"1 of 3 packages can't be fetched from {site.url}: torchaudio"
    other = "take another source_torch_index, or"
    assert told("guide", source_torch_index=site.url) == ([f"{lacks} 2.8.0+cu128 (404); {other} leave it out"], [])
    assert told("nightly", source_torch_index=site.url) == (
        [f"{lacks} (404); {other} another stack than nightly"], [])
    site.pages["/simple/torchaudio/"] = page(wheel("torchaudio-2.8.0%2Bcu128"))
    assert told("guide", source_torch_index=site.url) == told("nightly", source_torch_index=site.url) == ([], [])
    refused, (said,) = told("nightly", source_torch_index="http://127.0.0.1:9/whl")
    assert not refused and said.startswith("not checked whether torch, torchvision, torchaudio can be fetched: "
                                           "http://127.0.0.1:9/whl: ")


def test_only_a_complete_answer_is_kept_and_only_for_its_time(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = {"six": locked("1.17.0", "six-1.17.0-py2.py3-none-any.whl")}
    assert preflight.look(site.url, wanted, "3.10", own=True).missing
    site.pages = {"/simple/six/": page("six-1.17.0-py2.py3-none-any.whl")}
    first = preflight.look(site.url, wanted, "3.10", own=True)
    assert not first.missing and preflight.look(site.url, wanted, "3.10", own=True) == first
    assert len(site.asked) == 2, "the incomplete answer was asked again, the complete one kept"
    now = preflight.time.time()
    monkeypatch.setattr(preflight.time, "time", lambda: now + 7 * 3600)
    preflight.look(site.url, wanted, "3.10", own=True)
    assert len(site.asked) == 3


def test_an_index_that_does_not_answer_is_not_checked(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = {name: locked("1.0", name) for name in ("a", "b", "c")}
    silent = preflight.look("http://127.0.0.1:9/simple", wanted, "3.10", own=True)  # discard: nothing listens there
    assert not silent.missing and "127.0.0.1:9" in (silent.unchecked or "")
    monkeypatch.undo()
    assert "host itself" in (preflight.look("http://localhost:3141/root/pypi", wanted, "3.10").unchecked or "")


def test_the_json_form_with_sizes(site: Site) -> None:
    file = "six-1.17.0-py2.py3-none-any.whl"
    site.pages = {"/simple/six/": ("application/vnd.pypi.simple.v1+json", json.dumps(
        {"files": [{"filename": file, "url": f"/f/{file}", "hashes": {"sha256": sha(file)}, "size": 11050}]}))}
    found = preflight.look(site.url, {"six": locked("1.17.0", file)}, "3.12", own=True).found["six"]
    assert (found.bytes, found.url) == (11050, f"{site.url.removesuffix('/simple')}/f/{file}")


def test_the_file_that_pip_would_take() -> None:
    names = ("aiohttp-3.14.5-cp310-cp310-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
             "aiohttp-3.14.5-cp310-cp310-musllinux_1_2_x86_64.whl", "aiohttp-3.14.5-cp311-cp311-win_amd64.whl",
             "aiohttp-3.14.5.tar.gz", "aiohttp-3.14.50-py3-none-any.whl", "aiohttp-weird.whl")
    files = [File(name, f"u/{name}", sha(name), None) for name in names]
    wanted = locked("3.14.5", *names)
    assert index.best(files, "aiohttp", wanted, "3.10") == files[0]
    assert index.best(files, "aiohttp", wanted, "3.11") == files[3], "no wheel for it: the source"
    assert index.best(files[1:3], "aiohttp", wanted, "3.10") is None


def test_pips_own_words_tell_its_default() -> None:
    """Read from pip's help, so that no registry's address stands in our files."""
    found = preflight.default_index()
    assert found and found.startswith("https://")
