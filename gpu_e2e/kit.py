"""The kit: what a machine without a network needs beside the repository. Made where registries are in reach."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import yaml

from qwen_rig.catalog.flash_build import Source, load
from qwen_rig.network.index import ACCEPT, page_url, parse

REPO = Path(__file__).resolve().parent.parent
DATA = REPO / "qwen_rig" / "data"
PIP = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check"]


def make(kit: Path) -> None:
    """Fill a folder; what it has already is kept. Raises CalledProcessError, and ValueError where it is too large."""
    wanted = _wanted()
    _pip(wanted, kit / "product", [need for need in metadata.requires("qwen-rig") or [] if "extra" not in need])
    _pip(wanted, kit / "packages", [f"{name}=={version}" for name, version in wanted["packages"].items()], "--no-deps")
    for name in wanted["locks"]:
        _pip(wanted, kit / "packages", ["-r", f"{DATA}/locks/{name}.lock.txt"], "--no-deps", "--require-hashes")
    build, _ = load()
    if build.cuda and not (kit / "packages" / build.sdist).exists():
        _source(build, kit / "packages")
    _sshd(wanted["sshd"], kit / "sshd")
    _say(kit, wanted["roots"])
    size = sum(path.lstat().st_size for path in kit.rglob("*") if path.is_file()) >> 20
    print(f"{kit}: {size} MiB of {wanted['most_mib']}")
    if size > wanted["most_mib"]:
        raise ValueError(f"{kit} has {size} MiB: at most {wanted['most_mib']} are brought along")


def rehearsal(kit: Path) -> None:
    """A kit for this machine, which has registries and no card: an SSH server; small packages stand in for torch's."""
    wanted = _wanted()
    (kit / "packages").mkdir(parents=True, exist_ok=True)
    _sshd(wanted["sshd"], kit / "sshd")
    _say(kit, wanted["rehearsal"])


def _wanted() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("kit.yml").read_text())
    return found


def _say(kit: Path, roots: list[str]) -> None:
    (kit / "kit.json").write_text(json.dumps({"roots": roots, "commit": _commit()}) + "\n")


def _pip(wanted: dict[str, Any], where: Path, names: list[str], *more: str) -> None:
    platforms = [word for each in wanted["platforms"] for word in ("--platform", each)]
    subprocess.run([*PIP, "--only-binary", ":all:", "--python-version", wanted["python"], "--implementation", "cp",
                    *platforms, "-d", str(where), *more, *names], check=True)


def _source(build: Source, where: Path) -> None:
    """A source package, its hash looked at: pip itself would run its setup.py, which wants torch, to download it."""
    asked = "from pip._internal.models.index import PyPI; print(PyPI.simple_url)"  # pip names its default nowhere else
    index = os.environ.get("PIP_INDEX_URL") or subprocess.run(
        [sys.executable, "-c", asked], check=True, capture_output=True, text=True).stdout.strip()
    with urlopen(Request(page_url(index, build.package), headers={"Accept": ACCEPT})) as answer:
        files = parse(answer.read(), answer.headers.get_content_type(), answer.geturl())
    url, = (file.url for file in files if file.name == build.sdist)
    with urlopen(url) as answer:
        found = answer.read()
    if hashlib.sha256(found).hexdigest() != build.sha256:
        raise ValueError(f"{build.sdist} has another sha256 than qwen_rig/data/flash.yml says")
    (where / build.sdist).write_bytes(found)


def _sshd(names: list[str], where: Path) -> None:
    """An SSH server and its libraries, unpacked out of the distribution's own packages."""
    if (where / "usr/sbin/sshd").exists():
        return
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["apt-get", "download", "-qq", "-o", "APT::Sandbox::User=root", *names], check=True, cwd=folder)
        for package in Path(folder).glob("*.deb"):
            subprocess.run(["dpkg", "-x", str(package), str(where)], check=True)
    for spare in ("usr/share", "etc", "var"):
        shutil.rmtree(where / spare, ignore_errors=True)


def _commit() -> str:
    return subprocess.run(["git", "describe", "--always", "--dirty", "--abbrev=12"], check=True, capture_output=True,
                          text=True, cwd=REPO).stdout.strip()
