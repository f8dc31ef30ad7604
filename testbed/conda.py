"""The conda stand-in: an installer in Miniforge's form with an EMULATED conda, and a channel with a REAL CPython."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import zstandard
from conda_package_streaming.create import conda_builder
from conda_package_streaming.package_streaming import stream_conda_component

from . import interpreter
from ._shell import EMULATED, FILES, TestbedError, run
from .interpreter import Interpreter
from .paths import cache, locked, settle

VERSION = "26.3.2"  # of the conda in Miniforge 26.3.2-3
BUILD = "0_testbed"
PLACEHOLDER = "/opt/" + "_placehold" * 24  # conda-build's is as long: a place for any prefix in a compiled file
# Of the standard library: what runs nowhere on a headless host, and what only tests and builds of CPython use.
DROPPED = shutil.ignore_patterns("test", "tests", "idlelib", "tkinter", "turtledemo", "ensurepip", "site-packages",
                                 "lib2to3", "libpython*.a", "*.opt-1.pyc", "*.opt-2.pyc", "_tkinter*")


@dataclass(frozen=True)
class Conda:
    """channel: the folder to serve; installer: the file, its sha256 beside."""

    channel: Path
    installer: Path
    sha256: str


def ensure(base: Path) -> Conda:
    """Build channel and installer, once for this Python and these scripts. `base`: the hosts' tree, for its pip."""
    python = interpreter.choose()
    texts = [path.read_bytes() for path in (FILES / "conda.sh", FILES / "installer.sh", Path(__file__))]
    digest = hashlib.sha256(repr((python, base.name if not python.prefix else "", texts)).encode()).hexdigest()[:12]
    folder = cache() / f"conda-{digest}"
    with locked("conda"):
        if not folder.exists():
            partial = cache() / f".conda-{digest}.partial"
            shutil.rmtree(partial, ignore_errors=True)
            _channel(partial / "channel", python, base)
            _installer(partial / "installer.sh")
            partial.rename(folder)
        settle(folder)
    installer = folder / "installer.sh"
    return Conda(folder / "channel", installer, hashlib.sha256(installer.read_bytes()).hexdigest())


def _channel(folder: Path, python: Interpreter, base: Path) -> None:
    """linux-64 with Python, noarch with pip and setuptools: packages and index in conda's own form, the
    packages by conda's own library. repodata.json has one package a line, for the stand-in's grep."""
    with tempfile.TemporaryDirectory(dir=cache()) as scratch:
        root = Path(scratch)
        pack(folder / "linux-64", "python", python.version, _python(root / "python", python))
        site = f"lib/python{python.minor}/site-packages"
        needed: tuple[str, ...] = ("python",)
        for name in ("setuptools", "pip"):
            version = _library(root / name, name, site, python, base)
            if version:
                pack(folder / "noarch", name, version, root / name, needed)
                needed = ("python", "setuptools")
    for subdir in ("linux-64", "noarch"):
        lines = [f'  "{file.name}": {json.dumps(_row(file))}' for file in sorted((folder / subdir).glob("*.conda"))]
        (folder / subdir / "repodata.json").write_text(
            f'{{\n"info": {{"subdir": "{subdir}"}},\n"packages": {{}},\n"packages.conda": {{\n' + ",\n".join(lines)
            + '\n},\n"repodata_version": 1\n}\n', encoding="utf-8")


def _row(package: Path) -> dict[str, object]:
    """A package's row in repodata.json: what it says of itself, and its sums."""
    content = package.read_bytes()
    for archive, entry in stream_conda_component(package, component="info"):
        if entry.name == "info/index.json" and (file := archive.extractfile(entry)):
            return {**json.load(file), "md5": hashlib.md5(content, usedforsecurity=False).hexdigest(),
                    "sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
    raise TestbedError(f"{package} · has no info/index.json")


def pack(folder: Path, name: str, version: str, tree: Path, depends: tuple[str, ...] = ()) -> Path:
    """A tree as a .conda package (CEP 35). What says where the tree is has conda's own placeholder in its place, and
    is told in paths.json."""
    files = sorted(str(path.relative_to(tree)) for path in tree.rglob("*")
                   if (path.is_file() or path.is_symlink()) and path.relative_to(tree).parts[0] != "info")
    index = {"name": name, "version": version, "build": BUILD, "build_number": 0, "subdir": folder.name,
             "depends": list(depends), "license": f"the channel is {EMULATED}", "timestamp": 0}
    told = {"index.json": json.dumps(index), "files": "".join(f"{file}\n" for file in files),
            "paths.json": json.dumps({"paths": [_path(tree, file) for file in files], "paths_version": 1})}
    folder.mkdir(parents=True, exist_ok=True)
    (tree / "info").mkdir(exist_ok=True)
    with conda_builder(f"{name}-{version}-{BUILD}", folder,
                       compressor=lambda: zstandard.ZstdCompressor(level=3)) as archive:
        for name_, text in told.items():
            (tree / "info" / name_).write_text(text, encoding="utf-8")
        for file in [*files, *(f"info/{name_}" for name_ in told)]:
            archive.add(tree / file, file, recursive=False, filter=_owned_by_root)
    return folder / f"{name}-{version}-{BUILD}.conda"


def _path(tree: Path, file: str) -> dict[str, object]:
    """A row of paths.json."""
    at = tree / file
    if at.is_symlink():
        return {"_path": file, "path_type": "softlink", "sha256": hashlib.sha256().hexdigest(), "size_in_bytes": 0}
    content = at.read_bytes()
    row = {"_path": file, "path_type": "hardlink", "sha256": hashlib.sha256(content).hexdigest(),
           "size_in_bytes": len(content)}
    return {**row, "prefix_placeholder": PLACEHOLDER, "file_mode": "text"} if PLACEHOLDER.encode() in content else row


def _owned_by_root(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """Times stay: what is compiled beside a source counts only while it knows the source's own."""
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    return entry


def _python(tree: Path, python: Interpreter) -> Path:
    """The files of the python package: what a host needs to run it from any prefix."""
    name = f"python{python.minor}"
    (tree / "bin").mkdir(parents=True)
    if python.prefix is None:
        (tree / ".userland").touch()
        return tree
    shutil.copytree(python.prefix / "lib" / name, tree / "lib" / name, symlinks=True, ignore=DROPPED)
    (tree / "lib" / name / "site-packages").mkdir()
    shutil.copytree(python.prefix / "include" / name, tree / "include" / name)
    for library in (python.prefix / "lib").glob("libpython*.so*"):
        shutil.copy2(library, tree / "lib", follow_symlinks=False)
    executable = tree / "bin" / name
    shutil.copy2(python.prefix / "bin" / name, executable)
    for alias in ("python", "python3"):
        (tree / "bin" / alias).symlink_to(name)
    _relocate(executable, python.prefix)
    libraries = [path for path in (tree / "lib").glob("libpython*.so*") if not path.is_symlink()]
    if shutil.which("strip") and libraries:
        run(["strip", "--strip-unneeded", *libraries])
    out = run([executable, "-E", "-c", "import sys; print(sys.prefix)"]).strip()
    if Path(out) != tree:
        raise TestbedError(f"{python.prefix} · its Python does not run from another prefix (says {out})")
    return tree


def _relocate(executable: Path, prefix: Path) -> None:
    """Point the executable's run path at its own ../lib: the string in place, padded, as `chrpath` does."""
    old, new = f"{prefix}/lib".encode() + b"\0", b"$ORIGIN/../lib\0"
    data = executable.read_bytes()
    if old in data and len(new) <= len(old):
        executable.write_bytes(data.replace(old, new + bytes(len(old) - len(new))))


def _library(tree: Path, name: str, site: str, python: Interpreter, base: Path) -> str | None:
    """A pure-Python package from that Python's site-packages, or from the userland's wheels; its version or None."""
    target = tree / site
    target.mkdir(parents=True)
    if python.prefix:
        source = python.prefix / site
        infos = sorted(source.glob(f"{name}-*.dist-info"))
        for path in [source / name, *infos, *([source / "pkg_resources", source / "_distutils_hack",
                                               source / "distutils-precedence.pth"] if name == "setuptools" else [])]:
            if path.is_dir():
                shutil.copytree(path, target / path.name, ignore=shutil.ignore_patterns("tests"))
            elif path.exists():
                shutil.copy2(path, target)
    else:
        for wheel in (base / "usr/share/python-wheels").glob(f"{name}-*.whl"):
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(target)
        infos = sorted(target.glob(f"{name}-*.dist-info"))
    if not infos:
        return None
    if name == "pip":
        scripts = [f"bin/{alias}" for alias in ("pip", "pip3", f"pip{python.minor}")]
        (tree / "bin").mkdir()
        for script in scripts:
            (tree / script).write_text(f"#!{PLACEHOLDER}/bin/python\nimport sys\nfrom pip._internal.cli.main import "
                                       "main\nsys.exit(main())\n", encoding="utf-8")
            (tree / script).chmod(0o755)
    return infos[0].name.removesuffix(".dist-info").split("-")[1]


def _installer(path: Path) -> None:
    """The script with its payload: conda, a python that says that it is none, and conda's record of itself."""
    record = {"name": "conda", "version": VERSION, "build": f"py313_{BUILD}", "channel": f"conda-forge, {EMULATED}"}
    files = {
        "bin/conda": (FILES / "conda.sh").read_text(encoding="utf-8").replace("@VERSION@", VERSION),
        "bin/python": f'#!/bin/sh\necho "python: {EMULATED}: conda\'s own Python is not here" >&2\nexit 1\n',
        f"conda-meta/conda-{VERSION}-py313_{BUILD}.json": json.dumps(record, indent=1) + "\n",
        "conda-meta/history": f"# {EMULATED}\n",
    }
    with tempfile.TemporaryDirectory(dir=cache()) as scratch:
        for name, text in files.items():
            target = Path(scratch) / name
            target.parent.mkdir(exist_ok=True)
            target.write_text(text, encoding="utf-8")
            target.chmod(0o755 if name.startswith("bin/") else 0o644)
        (Path(scratch) / "condabin").mkdir()
        (Path(scratch) / "condabin" / "conda").symlink_to("../bin/conda")
        payload = Path(scratch).with_suffix(".tar.gz")
        run(["tar", "--owner=0", "--group=0", "--sort=name", "-I", "gzip -n", "-cf", payload, "-C", scratch, "."])
        path.write_bytes((FILES / "installer.sh").read_bytes() + payload.read_bytes())
        os.unlink(payload)
    path.chmod(0o755)
