"""What the bridge serves: put together here, served by testbed.httpd in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import TypedDict

from . import base, conda, hub, interpreter, mirror, nvidia, wheels
from ._shell import HANG_S, TestbedError, run
from .httpd import Site, site_json
from .paths import cache
from .spec import Services

REPO = Path(__file__).resolve().parent.parent


class Request(TypedDict):
    """One line of the counter."""

    client: str
    path: str
    count: int


def distribution_folder() -> str:
    """`debian12`: NVIDIA's name for what the hosts run."""
    return mirror.distribution().folder


def repository() -> Path:
    """The folder of this distribution's emulated NVIDIA packages."""
    folder = distribution_folder()
    return nvidia.repository(folder) / folder / "x86_64"


def prepare() -> None:
    """Build what the services need and isn't there yet."""
    repository()
    conda.ensure(base.ensure())
    made = REPO / "scripts" / "standin_wheel.py"
    if made.exists():
        run([sys.executable, made, cache() / "flash-attn"])


def start(folder: Path, address: str) -> Services:
    """Start the HTTP process on the bridge and return its URLs once it listens."""
    dist = mirror.distribution()
    prepare()
    stand_in = conda.ensure(base.ensure())
    folders = {"flash-attn": str(cache() / "flash-attn"), "nvidia": str(repository().parent.parent),
               "conda-forge": str(stand_in.channel), "hub": str(hub.folder())}
    site = Site(str(cache()), {source.name: source.uri for source in dist.sources}, folders, str(wheels.folder()),
                str(stand_in.installer), stand_in.sha256)
    (folder / "site.json").write_text(site_json(site), encoding="utf-8")
    with open(folder / "http.log", "ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "testbed.httpd", f"{folder}/", address, str(base.PORT)],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)})
    deadline = time.monotonic() + HANG_S
    while not (folder / "http.ready").exists():
        if process.poll() is not None or time.monotonic() > deadline:
            said = (folder / "http.log").read_text(errors="replace").strip().splitlines()[-1:]
            raise TestbedError(f"services at {address}:{base.PORT} · did not start · {' '.join(said)}")
        time.sleep(0.01)
    url = f"http://{address}:{base.PORT}"
    return Services(
        base=url, pip_index=f"{url}/pypi/simple/", conda_channel=f"{url}/conda-forge",
        miniforge=f"{url}/miniforge", miniforge_sha256=stand_in.sha256,
        nvidia_apt=f"{url}/nvidia", nvidia_apt_key=nvidia.fingerprint(), flash_attn=f"{url}/flash-attn",
        broken=f"{url}/broken", hang=f"{url}/hang", requests=f"{url}/requests", hub=f"{url}/hub",
        python=str(interpreter.choose()))


def requests(services: Services) -> list[Request]:
    """The counter: client address, path, how often."""
    with urllib.request.urlopen(services.requests, timeout=HANG_S) as answer:
        rows: list[Request] = json.load(answer)
        return rows

