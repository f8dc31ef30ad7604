"""The kit: what a machine without a network needs beside the repository. Made where registries are in reach."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from fnmatch import fnmatch
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
    _sshd(wanted["sshd"], kit / "sshd.tar.xz")
    _say(kit, wanted["roots"])
    more = kit.with_name(f"{kit.name}-beside")
    _pip(wanted, more, [f"{name}=={version}" for name, version in wanted["beside"].items()], "--no-deps")
    for folder in (kit / "packages", more):
        for wheel in folder.glob("*.whl"):
            trim(wheel, wanted["trimmed"].get(wheel.name.split("-")[0], []), wanted["stripped"])
    _pieces(wanted, kit.with_name(f"{kit.name}-fa4"))
    for folder in (kit, more):
        size = sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file()) >> 20
        print(f"{folder}: {size} MiB of {wanted['most_mib']}")
        if size > wanted["most_mib"]:
            raise ValueError(f"{folder} has {size} MiB: at most {wanted['most_mib']} are brought along")


def _pieces(wanted: dict[str, Any], folder: Path) -> None:
    """flash-attn 4 and what it needs, as its lock has them, in pieces of which each can be brought along alone."""
    if folder.exists():
        return
    with tempfile.TemporaryDirectory() as wheels, tempfile.TemporaryFile() as whole:
        _pip(wanted, Path(wheels), ["-r", f"{DATA}/locks/flash-attn-4.lock.txt"], "--no-deps", "--require-hashes")
        with tarfile.open(fileobj=whole, mode="w") as archive:
            archive.add(wheels, ".")
        whole.seek(0)
        folder.mkdir()
        for number, piece in enumerate(iter(lambda: whole.read(wanted["piece_mib"] << 20), b"")):
            (folder / f"piece.{number}").write_bytes(piece)


def trim(path: Path, without: list[str], strip: list[str]) -> None:
    """Leave files out of a wheel, and the symbols out of others; its RECORD tells what is there. A wheel that has been
    trimmed stays as it is."""
    with zipfile.ZipFile(path) as wheel:
        names = [name for name in wheel.namelist() if not any(fnmatch(name, each) for each in without)]
        if not without or names == wheel.namelist():
            return
        files = {name: wheel.read(name) for name in names}
    record = next(name for name in names if name.endswith(".dist-info/RECORD"))
    for name in [name for name in names if any(fnmatch(name, each) for each in strip)]:
        with tempfile.NamedTemporaryFile() as file:
            Path(file.name).write_bytes(files[name])
            subprocess.run(["strip", "--strip-unneeded", file.name], check=True)
            files[name] = Path(file.name).read_bytes()
    files[record] = "".join(f"{name},,\n" for name in names).encode()
    lean = any(fnmatch(name, each) for name in names for each in strip)
    packed = zipfile.ZIP_LZMA if lean else zipfile.ZIP_DEFLATED  # the smaller isn't for pip: parts.py unpacks it
    with zipfile.ZipFile(path, "w", packed) as wheel:
        for name, data in files.items():
            wheel.writestr(name, data)


def rehearsal(kit: Path) -> None:
    """A kit for this machine, which has registries and no card: an SSH server; small packages stand in for torch's."""
    wanted = _wanted()
    (kit / "packages").mkdir(parents=True, exist_ok=True)
    _sshd(wanted["sshd"], kit / "sshd.tar.xz")
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
    """An SSH server and its libraries, out of the distribution's own packages, as one archive."""
    if where.exists():
        return
    where.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as unpacked:
        subprocess.run(["apt-get", "download", "-qq", "-o", "APT::Sandbox::User=root", *names], check=True, cwd=folder)
        for package in Path(folder).glob("*.deb"):
            subprocess.run(["dpkg", "-x", str(package), unpacked], check=True)
        with tarfile.open(where, "w:xz") as archive:
            for part in ("lib", "usr/lib", "usr/sbin"):
                if (Path(unpacked) / part).exists():
                    archive.add(Path(unpacked) / part, part)


def _commit() -> str:
    return subprocess.run(["git", "describe", "--always", "--dirty", "--abbrev=12"], check=True, capture_output=True,
                          text=True, cwd=REPO).stdout.strip()
