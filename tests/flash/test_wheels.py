"""Which flash-attn wheels may be tried, and why the others may not."""

from __future__ import annotations

import hashlib
import importlib.util
import socket
import subprocess
import sys
import threading
import time
import zipfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from packaging.version import Version

from qwen_rig.catalog import flash_wheels
from qwen_rig.catalog.stack import DATA, load_stack
from tests import HANG_S

sys.path.insert(0, str(DATA.parent / "host"))
import attention

GUIDE, STANDIN = load_stack("guide"), load_stack("standin")
RTX5090 = [Version("12.0")]


@pytest.mark.parametrize("python", ["3.10", "3.11", "3.12"])
def test_a_5090_gets_the_official_wheel(python: str) -> None:
    wheels, rejected = GUIDE.flash_candidates(python, "2.36", RTX5090)
    tag = "cp" + python.replace(".", "")
    assert rejected == [] and len(wheels) == 1
    assert wheels[0].name == f"flash_attn-2.8.3+cu12torch2.8cxx11abiTRUE-{tag}-{tag}-linux_x86_64.whl"
    assert wheels[0].url.endswith(f"/v2.8.3/{wheels[0].name.replace('+', '%2B')}")
    assert len(wheels[0].sha256) == 64


def test_a_mirror_keeps_name_and_sum() -> None:
    ours, _ = GUIDE.flash_candidates("3.10", "2.36", RTX5090)
    mirrored, _ = GUIDE.flash_candidates("3.10", "2.36", RTX5090, source="http://10.1.2.3/flash/")
    assert mirrored[0].url.startswith("http://10.1.2.3/flash/v2.8.3/")
    assert mirrored[0].sha256 == ours[0].sha256


@pytest.mark.parametrize(("glibc", "capabilities", "word"), [
    ("2.31", ["12.0"], "glibc 2.31: the wheel needs 2.32 or newer"),
    ("2.36", ["7.0"], "sm_70: flash-attn needs compute capability 8.0 or more"),
    ("2.36", ["12.0", "7.5"], "sm_75: flash-attn needs"),
    ("2.36", ["11.0"], "sm_110: the wheel has code for sm_80, sm_90, sm_100, sm_120 only"),
])
def test_a_host_that_does_not_fit_is_told_why(glibc: str, capabilities: list[str], word: str) -> None:
    wheels, rejected = GUIDE.flash_candidates("3.10", glibc, [Version(c) for c in capabilities])
    assert wheels == [] and any(word in line for line in rejected)


@pytest.mark.parametrize("capability", ["8.0", "8.6", "8.9", "9.0", "10.0", "10.3", "12.1"])
def test_these_cards_run_its_code(capability: str) -> None:
    assert GUIDE.flash_candidates("3.10", "2.39", [Version(capability)])[0]


def test_what_is_not_known_rules_nothing_out() -> None:
    assert GUIDE.flash_candidates("3.10", None, [None])[0]


@pytest.mark.parametrize(("change", "word"), [
    ({"release": "2.9.1"}, "torch 2.9.1: the wheel is for torch 2.8"),
    ({"cuda": "13.0"}, "CUDA 13.0: the wheel is for CUDA 12"),
    ({"cxx11abi": False}, "C++ ABI: torch has cxx11abi FALSE, the wheel is for TRUE"),
])
def test_another_torch_is_another_wheel(change: dict[str, object], word: str) -> None:
    assert GUIDE.torch is not None and GUIDE.flash_attn is not None
    torch = replace(GUIDE.torch, **change)  # type: ignore[arg-type]
    wheels, rejected = flash_wheels.candidates(GUIDE.flash_attn, torch, "3.10", "2.36", RTX5090)
    assert wheels == [] and rejected == [word]


def test_no_torch_no_wheel() -> None:
    assert GUIDE.flash_attn is not None
    assert flash_wheels.candidates(GUIDE.flash_attn, None, "3.10", "2.36", RTX5090) == ([], ["the stack has no torch"])


def test_a_wheel_nobody_vouches_for_is_not_used() -> None:
    assert GUIDE.flash_attn is not None
    wheels = {tag: replace(wheel, sha256=None) for tag, wheel in GUIDE.flash_attn.wheels.items()}
    spoilt = replace(GUIDE.flash_attn, wheels=wheels)
    found, rejected = flash_wheels.candidates(spoilt, GUIDE.torch, "3.10", "2.36", RTX5090)
    assert found == [] and "no checksum is known" in rejected[0]


def test_a_third_partys_wheels_serve_an_older_glibc_and_come_without_a_checksum() -> None:
    found, = flash_wheels.others(GUIDE.torch, "3.10", "2.31", RTX5090)
    assert found.name.startswith("flash_attn-2.8.3+cu128torch2.8-cp310-cp310-manylinux_2_24_x86_64.")
    assert found.sha256 is None and found.url.endswith(found.name.replace("+", "%2B"))
    assert flash_wheels.others(GUIDE.torch, "3.10", "2.27", RTX5090) == []
    assert flash_wheels.others(GUIDE.torch, "3.10", "2.31", [Version("7.0")]) == []
    assert flash_wheels.others(load_stack("qwen3").torch, "3.10", "2.31", RTX5090) == []
    assert flash_wheels.others(None, "3.10", "2.31", RTX5090) == []


def _served(server: socket.socket, head: bytes, sent: list[bytes]) -> None:
    """To one client: this, and then a byte now and then for as long as it stays."""
    with suppress(OSError):
        client, _ = server.accept()
        client.recv(4096)
        client.sendall(head)
        while True:
            client.sendall(b"x")
            sent.append(b"x")
            time.sleep(0.05)


@pytest.mark.parametrize(("head", "why"), [
    (b"HTTP/1.1 200 OK\r\nContent-Length: 256000000\r\n\r\n", f"not installed: no end within {HANG_S} s"),
    (b"SSH-2.0-x\r\n", "not installed: SSH-2.0-x"),
])
def test_an_unverified_wheels_server_that_never_ends_or_talks_otherwise_ends_that_rung_only(
        monkeypatch: pytest.MonkeyPatch, head: bytes, why: str) -> None:
    """The clock stands still until a few bytes have come; then the time is over."""
    sent: list[bytes] = []
    monkeypatch.setattr(attention, "time", SimpleNamespace(monotonic=lambda: (HANG_S + 1) * (len(sent) > 3)))
    with socket.create_server(("127.0.0.1", 0)) as server:
        serving = threading.Thread(target=_served, args=(server, head, sent), daemon=True)
        serving.start()
        wheel = {"name": "x-1-py3-none-any.whl", "sha256": None,
                 "url": f"http://127.0.0.1:{server.getsockname()[1]}/x-1-py3-none-any.whl"}
        said, last = attention.install(wheel, {"package": "x", "companions": [], "index": None}, HANG_S)
    assert said.strip() == why and last == []
    serving.join(HANG_S)
    assert not serving.is_alive(), "the client has hung up, else this would be sending still"


def test_a_python_without_wheel() -> None:
    assert GUIDE.flash_candidates("3.13", "2.36", RTX5090) == ([], ["flash-attn 2.8.3 has no wheel for Python 3.13"])


def test_the_stand_in_comes_from_a_source_of_ones_own_only() -> None:
    assert STANDIN.flash_candidates("3.10", "2.36", RTX5090)[0] == []
    wheels, rejected = STANDIN.flash_candidates("3.10", "2.36", RTX5090, source="http://10.1.2.3")
    assert rejected == [] and wheels[0].url == "http://10.1.2.3/v1.0/rig_standin_attn-1.0-py3-none-any.whl"


@pytest.fixture(scope="module")
def builder() -> ModuleType:
    path = Path(__file__).parents[2] / "scripts" / "standin_wheel.py"
    spec = importlib.util.spec_from_file_location("standin_wheel", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_stand_ins_bytes_are_those_pinned(builder: ModuleType, tmp_path: Path) -> None:
    built = builder.build(tmp_path)
    assert STANDIN.flash_attn is not None
    pinned = STANDIN.flash_attn.wheels["py3"]
    assert built == tmp_path / "v1.0" / pinned.name
    assert hashlib.sha256(built.read_bytes()).hexdigest() == pinned.sha256
    assert built.stat().st_size == pinned.bytes


def test_the_stand_in_proves_itself(builder: ModuleType, tmp_path: Path) -> None:
    with zipfile.ZipFile(builder.build(tmp_path)) as wheel:
        wheel.extractall(tmp_path / "site")
    done = subprocess.run([sys.executable, "-m", "rig_standin_attn"], cwd=tmp_path / "site", capture_output=True,
                          text=True)
    assert (done.returncode, done.stdout) == (0, "rig-standin-attn 1.0 is a stand-in and works as one\n")
