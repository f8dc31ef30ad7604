"""qwen_rig/host/prefetch.py against the stand-in hub: fetched once, checked, resumed, and every failure one line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from qwen_rig.catalog import models
from testbed import hub
from testbed.httpd import Server, Site
from tests import HANG_S

PROGRAM = Path(__file__).parents[2] / "qwen_rig" / "host" / "prefetch.py"
WEIGHTS = hub.FILES["model.safetensors"]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    evil = tmp_path / "evil" / "api" / "models" / "a" / "b" / "revision" / "main"
    evil.parent.mkdir(parents=True)
    rows = [{"rfilename": "../../../outside.json", "size": 2, "blobId": "0" * 40}]
    evil.write_text(json.dumps({"sha": hub.COMMIT, "siblings": rows}))
    made = Server(("127.0.0.1", 0), Site(str(tmp_path), {}, {"hub": str(hub.folder()), "evil": str(tmp_path / "evil")}))
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield made
    made.shutdown()
    made.server_close()


def _run(tmp_path: Path, server: Server, below: str = "hub", model: str = hub.MODEL,
         **more: Any) -> subprocess.CompletedProcess[str]:
    spec = {"model": model, "endpoint": f"http://127.0.0.1:{server.server_address[1]}/{below}", "margin_mib": 1,
            "home": str(tmp_path / "home"), "files": list(models.files_to_fetch()), **more}
    return subprocess.run([sys.executable, str(PROGRAM), "--spec", json.dumps(spec), "--record",
                           str(tmp_path / "prefetch.json")], text=True, capture_output=True, timeout=HANG_S)


def _snapshot(tmp_path: Path) -> Path:
    return (tmp_path / "home" / "hub" / f"models--{hub.MODEL.replace('/', '--')}" / "snapshots" / hub.COMMIT)


def _blob(tmp_path: Path) -> Path:
    rows: Any = hub.listing()["siblings"]
    name = next(row["lfs"]["sha256"] for row in rows if row["rfilename"] == "model.safetensors")
    return _snapshot(tmp_path).parents[1] / "blobs" / name


def _requests(server: Server) -> int:
    return sum(server.counts.values())


def test_a_model_is_fetched_once_into_the_hubs_own_layout(tmp_path: Path, server: Server) -> None:
    done = _run(tmp_path, server)
    assert done.returncode == 0, done.stderr
    there = {str(path.relative_to(_snapshot(tmp_path))): path.read_bytes() for path in _snapshot(tmp_path).rglob("*.*")}
    assert there == {name: hub.FILES[name] for name in
                     ("config.json", "tokenizer.json", "nested/notes.txt", "model.safetensors")}
    assert all((_snapshot(tmp_path) / name).is_symlink() for name in there)
    assert (_snapshot(tmp_path).parents[1] / "refs" / "main").read_text() == hub.COMMIT
    record = json.loads((tmp_path / "prefetch.json").read_text())
    assert record["snapshot"] == str(_snapshot(tmp_path)) and record["bytes"] == sum(map(len, there.values()))
    counted = _requests(server)
    again = _run(tmp_path, server)
    assert again.returncode == 0 and _requests(server) == counted + 1, "the listing alone is asked for again"
    assert json.loads((tmp_path / "prefetch.json").read_text())["fetched"] == 0


def test_what_was_cut_off_goes_on_where_it_was(tmp_path: Path, server: Server) -> None:
    """The hub lies in one of the first bytes: only who doesn't ask for them again gets a whole file."""
    _blob(tmp_path).parent.mkdir(parents=True)
    partial = _blob(tmp_path).with_name(f"{_blob(tmp_path).name}.incomplete")
    partial.write_bytes(WEIGHTS[:1 << 20])
    done = _run(tmp_path, server, "lying/hub")
    assert done.returncode == 0 and _blob(tmp_path).read_bytes() == WEIGHTS, done.stderr
    assert not partial.exists()


def test_bytes_that_are_not_the_listed_ones_are_refused(tmp_path: Path, server: Server) -> None:
    done = _run(tmp_path, server, "lying/hub")
    assert done.returncode == 1 and done.stderr.startswith("qwen-rig: ") and done.stderr.count("\n") == 1
    assert "its bytes aren't those that the hub lists" in done.stderr
    assert not _blob(tmp_path).exists() and not (tmp_path / "prefetch.json").exists()


@pytest.mark.parametrize(("below", "more", "said"), [
    ("hub", {"model": hub.TOO_BIG}, "too-big takes 1048576.0 GiB more: free some"),
    ("hub", {"model": "nobody/nothing"}, "no such model; check prefetch_model"),
    ("hub", {"files": ["*.gguf"]}, "has no file that training takes (*.gguf)"),
    ("hub", {"endpoint": "http://127.0.0.1:9/hub"}, "doesn't list qwen-rig-testbed/standin-model (URLError"),
    ("evil", {"model": "a/b"}, "lists '../../../outside.json', which is no file of a model"),
])
def test_what_cannot_be_is_one_line_and_leaves_nothing(below: str, more: dict[str, Any], said: str, tmp_path: Path,
                                                        server: Server) -> None:
    done = _run(tmp_path, server, below, **more)
    assert done.returncode == 1 and done.stderr.startswith("qwen-rig: ") and done.stderr.count("\n") == 1, done.stderr
    assert said in done.stderr
    assert not (tmp_path / "prefetch.json").exists() and not list((tmp_path / "home").rglob("*.*"))


@pytest.mark.real
def test_huggingface_hub_finds_it_there_offline(tmp_path: Path, server: Server) -> None:
    if not (python := os.environ.get("QWEN_RIG_TRAIN_PYTHON")):
        pytest.skip("QWEN_RIG_TRAIN_PYTHON names no Python with huggingface_hub")
    assert _run(tmp_path, server).returncode == 0
    ask = (f"from huggingface_hub import snapshot_download as s; from transformers import AutoConfig as a; "
           f"print(s({hub.MODEL!r}, local_files_only=True)); print(a.from_pretrained({hub.MODEL!r}).model_type)")
    done = subprocess.run([python, "-c", ask], text=True, capture_output=True, timeout=HANG_S,
                          env={**os.environ, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"})
    assert done.stdout.split() == [str(_snapshot(tmp_path)), "qwen2"], done.stderr
