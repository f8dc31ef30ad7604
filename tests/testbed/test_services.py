"""What the bridge's HTTP process answers, and what lies in the packages; no host, no root."""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed import HostSpec, TestbedError, kmod, models, nvidia
from testbed.httpd import Server, Site
from tests import HANG_S

WHEEL = "some_thing-1.0-py3-none-any.whl"
DIGEST = "03ac674216f3e15c761ee1a5e255f067953623c8b388b4459e13f978d7c846f4"  # sha256 of 1234


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels" / WHEEL).write_bytes(b"1234")
    (tmp_path / "installer.sh").write_bytes(b"#!/bin/sh\n")
    site = Site(str(tmp_path), {}, {"files": str(tmp_path / "wheels")}, str(tmp_path / "wheels"),
                str(tmp_path / "installer.sh"), "abc")
    server = Server(("127.0.0.1", 0), site)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def get(url: str, **headers: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=HANG_S) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, b""


def test_index(url: str) -> None:
    assert b'href="some-thing/"' in get(f"{url}/pypi/simple/")[1]
    assert f"../../files/{WHEEL}#sha256={DIGEST}".encode() in get(f"{url}/pypi/simple/some-thing/")[1]
    assert get(f"{url}/pypi/files/{WHEEL}") == (200, b"1234")
    assert get(f"{url}/pypi/simple/other/")[0] == 404


def test_ranges(url: str) -> None:
    assert get(f"{url}/files/{WHEEL}", Range="bytes=1-2") == (206, b"23")
    assert get(f"{url}/files/{WHEEL}", Range="bytes=-1") == (206, b"4")


def test_nothing_outside_its_folders(url: str) -> None:
    assert get(f"{url}/files/../installer.sh")[0] == 404
    assert get(f"{url}/files/%2e%2e/installer.sh")[0] == 404


def test_installer_under_any_version_s_name(url: str) -> None:
    name = "Miniforge3-1-2-Linux-x86_64.sh"
    assert get(f"{url}/miniforge/{name}") == (200, b"#!/bin/sh\n")
    assert get(f"{url}/miniforge/{name}.sha256") == (200, f"abc  ./{name}\n".encode())


def test_faults(url: str) -> None:
    assert get(f"{url}/broken/pypi/simple/")[0] == 404
    assert get(f"{url}/broken-files/pypi/simple/")[0] == 200
    assert get(f"{url}/broken-files/pypi/files/{WHEEL}")[0] == 404
    with pytest.raises(TimeoutError):
        urllib.request.urlopen(f"{url}/hang/pypi/simple/", timeout=0.3)


def test_a_mirror_that_lies_and_one_that_lacks(url: str) -> None:
    page = get(f"{url}/lying/pypi/simple/some-thing/")[1]
    assert DIGEST.encode() in page, "the page promises the right bytes"
    assert get(f"{url}/lying/miniforge/Miniforge3-1-2-Linux-x86_64.sh") == (200, b"#!/bin/sh\xf5"), "the last byte"
    assert get(f"{url}/lying-other/pypi/files/{WHEEL}") == (200, b"1234")
    assert get(f"{url}/slow/pypi/files/{WHEEL}") == (200, b"1234")
    assert get(f"{url}/lacking-some/pypi/simple/some-thing/")[0] == 404
    assert get(f"{url}/lacking-other/pypi/simple/some-thing/")[0] == 200


def test_counter(url: str) -> None:
    for _ in range(2):
        get(f"{url}/files/{WHEEL}")
    rows = json.loads(get(f"{url}/requests")[1])
    assert {"client": "127.0.0.1", "path": f"/files/{WHEEL}", "count": 2} in rows


def test_module_file_is_elf_with_its_version() -> None:
    data = kmod.module("580.95.05", "open")
    assert data.startswith(b"\x7fELF") and b"\0version=580.95.05\0" in data and b"license=Dual MIT/GPL\0" in data


def test_which_driver_serves_which_card() -> None:
    blackwell, volta = models.MODELS["rtx5090"], models.MODELS["v100"]
    assert blackwell.serves("580.95.05", "open") and not blackwell.serves("580.95.05", "proprietary")
    assert not blackwell.serves("550.90.07", "open")
    assert volta.serves("580.95.05", "proprietary") and not volta.serves("590.48.01", "proprietary")


def test_every_model_that_is_said_to_be_served_has_a_driver_that_serves_it() -> None:
    assert all(any(model.serves(version, flavour) for version in nvidia.DRIVERS for flavour in models.BOTH)
               for model in models.MODELS.values())


@pytest.mark.parametrize(("field", "value"), [("gpu", "rtx9"), ("driver", "580"), ("user", "bob")])
def test_a_spec_says_what_it_knows(field: str, value: str) -> None:
    with pytest.raises(TestbedError, match=f"{value}.*(known|wanted)"):
        HostSpec("a", **{field: value})  # type: ignore[arg-type]
