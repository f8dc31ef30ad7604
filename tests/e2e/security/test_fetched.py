"""An index and a conda channel that serve a canary for everything that no hash of ours covers: nothing of them runs on
a host, through whole applies, and what is locked is installed all the same."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import re
import shutil
import subprocess
import tarfile
import tempfile
import threading
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import pytest
import yaml
from conda_package_streaming.extract import extract

from qwen_rig.catalog.stack import DATA
from scripts import pins
from tests.e2e.conftest import Lab

pytestmark = pytest.mark.testbed
HOST, ENV = "fetched", "/root/miniforge3/envs/qwen-train"
FOUND = "ls -d /root/CANARY-* 2>/dev/null || :"  # what a canary leaves where any of it runs
AFRESH = f"rm -rf {ENV} /root/miniforge3/envs/.qwen-train-* /root/.cache/uv /root/.cache/pip /root/.cache/qwen-rig"
MARK = "import os; os.system('touch /root/CANARY-{name}')\n"


def canary(name: str, version: str) -> bytes:
    """A wheel that leaves its mark when it is imported, asked to build, or just lies in an env whose Python starts."""
    module, info, mark = name.replace("-", "_"), f"{name.replace('-', '_')}-{version}.dist-info", MARK.format(name=name)
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as wheel:
        for path, text in {
                f"{module}/__init__.py": f"{mark}def setup(**k): pass\n", f"{module}/build_meta.py": mark,
                f"{module}/__main__.py": mark, f"zz_{module}.pth": mark,
                f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
                f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
                f"{info}/RECORD": ""}.items():
            wheel.writestr(path, text)
    return made.getvalue()


def sdist() -> bytes:
    """An honest package, published as source only."""
    setup = 'from setuptools import setup\nsetup(name="rig-legit", version="1.0", py_modules=["rig_legit"])\n'
    about = "Metadata-Version: 2.1\nName: rig-legit\nVersion: 1.0\n"
    files = {"setup.py": setup, "rig_legit.py": "", "PKG-INFO": about}
    made = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", fileobj=made, mtime=0) as packed, \
            tarfile.open(fileobj=packed, mode="w") as archive:
        for name, text in files.items():
            entry = tarfile.TarInfo(f"rig_legit-1.0/{name}")
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text.encode()))
    return made.getvalue()


class Liar(BaseHTTPRequestHandler):
    """/simple/: the testbed's index, with a newer release of each project; /conda/: its channel with another pip."""

    index: str
    channel: Path
    same_name: str | None = None  # a project whose locked files are canaries under their own names

    def do_GET(self) -> None:
        kind, _, path = self.path.partition("?")[0].lstrip("/").partition("/")
        body = {"simple": self.page, "files": self.file, "conda": self.package}[kind](path.strip("/"))
        self.send_response(200 if body is not None else 404)
        self.send_header("Content-Type", "text/html" if kind == "simple" else "application/octet-stream")
        self.send_header("Content-Length", str(len(body or b"")))
        self.end_headers()
        self.wfile.write(body or b"")

    do_HEAD = do_GET

    def page(self, project: str) -> bytes:
        links = [f"/files/{project.replace('-', '_')}-9999.0-py3-none-any.whl"]
        if project == "rig-legit":
            links.append("/files/rig_legit-1.0.tar.gz")
        try:
            with urllib.request.urlopen(f"{self.index}{project}/") as answer:
                real = [urljoin(answer.url, href) for href in re.findall(r'href="([^"]+)"', answer.read().decode())]
        except urllib.error.HTTPError:
            real = []
        if project == self.same_name:
            real = [f"/files/{urlsplit(link).path.rpartition('/')[2]}" for link in real]
        return "".join(f'<a href="{link}">{urlsplit(link).path.rpartition("/")[2]}</a>\n'
                       for link in (*links, *real)).encode()

    def file(self, name: str) -> bytes:
        return sdist() if name.endswith(".tar.gz") else canary(*name.split("-")[:2])

    def package(self, path: str) -> bytes | None:
        file = self.channel / path
        if not file.is_file():
            return None
        if file.name.startswith("pip-"):
            return spoilt(file)
        if file.name != "repodata.json":
            return file.read_bytes()
        text = file.read_text()
        for pip in file.parent.glob("pip-*"):
            text = text.replace(hashlib.sha256(pip.read_bytes()).hexdigest(), hashlib.sha256(spoilt(pip)).hexdigest())
        return text.encode()

    def log_message(self, *args: Any) -> None:
        pass


@cache
def spoilt(file: Path) -> bytes:
    """A conda package with a canary beside what is in it. Made once: a host waits 6 s for a channel's list."""
    from testbed import conda

    with tempfile.TemporaryDirectory() as scratch:
        tree = Path(scratch, "tree")
        extract(file, tree)
        about = json.loads((tree / "info" / "index.json").read_text())
        (next(tree.glob("lib/python3*/site-packages")) / "zz_conda.pth").write_text(MARK.format(name="conda"))
        return conda.pack(Path(scratch, about["subdir"]), about["name"], about["version"], tree,
                          tuple(about["depends"])).read_bytes()


@dataclass
class Place:
    lab: Lab
    folder: Path

    def apply(self, **data: str) -> Any:
        words = [word for name, value in data.items() for word in ("--data", f"{name}={value}")]
        return self.lab.deploy("-y", *words)

    @property
    def canaries(self) -> list[str]:
        return self.lab.on(HOST, FOUND).split()


@pytest.fixture(scope="module")
def place(bed: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    from testbed import HostSpec, base, conda

    folder = tmp_path_factory.mktemp("fetched")
    infos = bed.up([HostSpec(HOST, kind="container", driver="580.95.05:open")])
    Liar.index, Liar.channel = bed.services().pip_index, conda.ensure(base.ensure()).channel
    assert [spoilt(file) for file in Liar.channel.glob("noarch/pip-*")]
    server = ThreadingHTTPServer((str(urlsplit(bed.services().base).hostname), 0), Liar)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://{server.server_address[0]}:{server.server_port}"
    lab = Lab(bed, infos, folder, stack=str(stack(folder)), source_pip_index=f"{address}/simple/", mirrors="off",
              source_conda_channel=f"{address}/conda", verification="never", compilers="never", flash_attn="off",
              accept_unpinned_python=False)
    yield Place(lab, folder)
    server.shutdown()
    server.server_close()
    bed.down()


def stack(folder: Path) -> Path:
    """The stand-in stack, with a package more that is published as source only."""
    for name in ("stacks/standin.yml", "locks/standin.lock.txt", "locks/standin.sizes.yml"):
        shutil.copy(DATA / name, folder)
    made = yaml.safe_load((folder / "standin.yml").read_text())
    made["name"], made["sdists"] = "own", ["rig-legit"]
    made["pins"]["rig-legit"] = {"version": "1.0", "source": "a test"}
    (folder / "standin.yml").write_text(yaml.safe_dump(made))
    with open(folder / "standin.lock.txt", "a") as lock:
        lock.write(f"rig-legit==1.0 --hash=sha256:{hashlib.sha256(sdist()).hexdigest()}\n")
    return folder / "standin.yml"


def test_without_a_lock_python_is_refused_where_the_user_says_so(place: Place) -> None:
    refused = place.apply()
    assert refused.code == 1 and "not pinned, and accept_unpinned_python is false" in " ".join(refused.stderr.split())
    assert not place.canaries and "no" in place.lab.on(HOST, "test -e /root/miniforge3 || echo no")


def test_pins_make_the_lock_and_another_pip_is_refused_by_it(place: Place) -> None:
    from testbed import base, conda

    own = place.folder / "conda"
    subprocess.run(["bash", conda.ensure(base.ensure()).installer, "-b", "-p", own], check=True, capture_output=True)
    for folder in ("locks", "stacks"):
        (place.folder / folder).mkdir()
    python = str(place.lab.data["defaults"]["python"])
    assert pins.main(["--channel", place.lab.bed.services().conda_channel, "--conda", str(own / "bin" / "conda"),
                      "--pythons", python, "--data", str(place.folder)]) == 0
    place.lab.data["defaults"]["conda_lock"] = str(place.folder / "locks" / "conda.yml")
    place.lab.write()
    refused = place.apply()
    assert refused.code == 1 and re.search(r"no channel has noarch/pip-\S+ with the locked sha256", refused.stderr), \
        refused.stderr
    assert not place.canaries
    # Control: by the channel's own sums, this very pip is taken, and its canary runs. Setuptools of other bytes under
    # the locked name are refused there all the same.
    Liar.same_name = "setuptools"
    taken = place.apply(conda_lock="none", accept_unpinned_python="true")
    Liar.same_name = None
    assert "not pinned (by plain http, so that anybody on the way can replace them)" in " ".join(taken.stderr.split())
    assert taken.code == 1, taken.stderr
    assert "what source packages are built with can't be fetched as locked" in taken.stderr, taken.stderr
    assert place.canaries == ["/root/CANARY-conda"]
    place.lab.on(HOST, "rm -rf /root/CANARY-*")


@pytest.mark.parametrize("installer", ["uv", "pip"])
def test_what_is_locked_is_built_and_nothing_else_runs(place: Place, installer: str) -> None:
    place.lab.data["defaults"].update(installer=installer, source_conda_channel=place.lab.bed.services().conda_channel)
    place.lab.write()
    place.lab.on(HOST, AFRESH)
    done = place.apply()
    assert done.code == 0, done.stderr
    assert not place.canaries and "not pinned" not in done.stderr
    assert place.lab.on(HOST, f"{ENV}/bin/python -c 'import rig_legit'; ls {ENV}/lib/python3*/site-packages").count(
        "rig_legit-1.0.dist-info") == 1
    assert "No changes." in place.apply().stderr
