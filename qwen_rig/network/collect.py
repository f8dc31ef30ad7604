"""Filling a bundle from outside: each file once, taken up again where it broke off, checked by hash as it comes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import quote

from qwen_rig import atomic, bundle, inside, openpgp
from qwen_rig.catalog.conda_lock import PACKAGE, load_conda_lock
from qwen_rig.catalog.flash_build import load
from qwen_rig.catalog.limits import load_limits
from qwen_rig.catalog.lock import Requirement, read_lock, select
from qwen_rig.catalog.rules import load_rules
from qwen_rig.catalog.sources import load_sources
from qwen_rig.catalog.stack import Stack
from qwen_rig.catalog.yamlfile import shown
from qwen_rig.errors import RigError
from qwen_rig.knobs import Knobs, stack_of
from qwen_rig.network import index as pages
from qwen_rig.network import preflight
from qwen_rig.network.fetch import Terms, digest, fetch
from qwen_rig.network.index import File
from qwen_rig.network.web import Unreachable, bare, get
from qwen_rig.plan.python import address

AT_ONCE = 4
SECONDS = 900  # for conda to solve

Say = Callable[[str], None]


class Collector:
    """One bundle in the making. `say` is told, line by line, what is done."""

    def __init__(self, folder: Path, knobs: Knobs, say: Say) -> None:
        self.folder, self.knobs, self.say = folder, knobs, say
        self.stack: Stack = stack_of(knobs.stack)
        self.files: dict[str, dict[str, Any]] = {}

    def collect(self, conda: str | None) -> None:
        """Fetch all, then write the manifest. conda: a conda, mamba or micromamba that solves; None: Miniforge's own.

        Raises RigError where anything that a host can't do without can't be fetched; what came stays for a next try.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            self._wheels()
            installer = self._miniforge()
            self._conda(conda, installer)
            self._keys()
            self._flash()
            bundle.write(self.folder, self.stack.name, self.knobs.python, self.files, self.stack.lock_sha256)
        except Unreachable as error:
            raise RigError(str(error), "bundle", "run the same command again: what is here already is kept") from None
        except inside.Refused as error:
            raise RigError(str(error), str(self.folder), "take another folder, or remove that") from None

    def _take(self, path: str, url: str, sha256: str | None, own: str | None) -> str:
        """Bring a file. own: the knob or the configured index that the address is from, whose server may be private."""
        if not bundle.PATH.fullmatch(path):
            raise Unreachable(f"{bare(url)} has a name that no bundle can hold: {ascii(path)[:80]}")
        found = fetch(url, inside.room(self.folder, path), sha256, Terms(own))
        self.files[path] = {"sha256": found, "bytes": (self.folder / path).stat().st_size, "from": bare(url)}
        return found

    def _wheels(self) -> None:
        index = self.knobs.source_pip_index or preflight.default_index(configured=True)
        if index is None:
            raise RigError("this machine's pip names no package index", "bundle", "set source_pip_index")
        python = self.knobs.python
        if self.stack.torch_source(self.knobs.source_torch_index, python):
            raise RigError(f"a bundle holds a stack's lock, and the torch of stack {self.stack.name} comes from an "
                           "index of its own", "bundle", "take another stack, or leave source_torch_index out")
        wanted: dict[str, Requirement] = dict(self.stack.requirements(python))
        with_uv = select(read_lock(Path(str(files("qwen_rig.data") / "locks" / "uv.lock.txt")), {}), python)
        tools = self.stack.build_requirements(python) if self.stack.built(wanted, python) else {}
        found: list[File] = []
        parts = (wanted, with_uv, tools)  # each apart: the lock may hold another uv, or setuptools, of its own
        for part in parts:
            look = preflight.look(index, part, python, own=True)  # the user's: a knob, or this machine's own pip
            if look.unchecked:
                raise Unreachable(look.unchecked)
            if look.missing:
                name, why = next(iter(sorted(look.missing.items())))
                raise RigError(f"{len(look.missing)} locked files can't be fetched from {bare(index)}: {name} "
                               f"{part[name].version} ({why})", "bundle", "take another source_pip_index")
            found += look.found.values()
        self.say(f"packages: {len(found)} files from {bare(index)}")
        by_name = {file.name: file for file in found}
        hashes = {each for part in parts for row in part.values() for each in row.hashes}

        def one(file: File) -> None:
            sha256 = self._take(f"wheels/{file.name}", file.url, file.sha256, index)
            if f"sha256:{sha256}" not in hashes:
                raise Unreachable(f"{file.name} from {bare(index)} isn't the locked file")

        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(one, by_name.values()))

    def _miniforge(self) -> Path:
        release = load_sources().miniforge
        name = f"Miniforge3-{self.knobs.source_miniforge_version or release.version}-Linux-x86_64.sh"
        base = (self.knobs.source_miniforge or release.url).rstrip("/")
        self.say(f"Miniforge: {name}")
        self._take(f"miniforge/{name}", f"{base}/{name}", self.knobs.source_miniforge_sha256 or release.sha256,
                   self.knobs.source_miniforge)
        return self.folder / "miniforge" / name

    def _conda(self, conda: str | None, installer: Path) -> None:
        """Python and what it needs: the files that are locked, or those that conda itself would take, checked against
        the channel's own sums."""
        channel = self.knobs.source_conda_channel or load_sources().conda_channel
        if locked := load_conda_lock(self.knobs.conda_lock).files(self.knobs.python):
            self.say(f"Python {self.knobs.python} and what it needs: {len(locked)} conda packages, locked")
            for file in locked:
                self._take(f"conda/{file.path}", f"{address(channel)}/{file.path}", file.sha256,
                           self.knobs.source_conda_channel)
            return
        wanted = solved(conda, installer, channel, self.knobs.python)
        self.say(f"Python {self.knobs.python} and what it needs: {len(wanted)} conda packages, not pinned: "
                 "taken by the channel's own sums")
        indexed: dict[str, dict[str, Any]] = {"linux-64": {}, "noarch": {}}
        for row in wanted:
            subdir, name = row["subdir"], row["fn"]
            self._take(f"conda/{subdir}/{name}", row["url"], row["sha256"], self.knobs.source_conda_channel)
            indexed.setdefault(subdir, {})[name] = {key: value for key, value in row.items()
                                                    if key not in ("url", "fn", "channel", "schannel")}
        for subdir, packages in indexed.items():
            self._write(f"conda/{subdir}/repodata.json", repodata(subdir, packages))

    def _write(self, path: str, text: str) -> None:
        target = inside.room(self.folder, path)
        atomic.write(target, text, folder_mode=0o777)
        self.files[path] = {"sha256": digest(target), "bytes": target.stat().st_size, "from": "written by us"}

    def _keys(self) -> None:
        """The key of a repository of the user's own, as each distribution's folder may have it: NVIDIA's are ours."""
        source, wanted = load_sources().nvidia_apt, (self.knobs.source_nvidia_apt_key or "").replace(" ", "").upper()
        if not wanted or source.keyring(wanted) is not None:
            return
        why = ""
        for folder, packages in load_rules().drivers.items():
            base = (self.knobs.source_nvidia_apt or source.url).rstrip("/")
            url = f"{base}/{folder}/x86_64/{packages.key.file if packages.key else source.own_file}"
            try:
                text = get(url, load_limits().lookup_seconds, own=self.knobs.source_nvidia_apt).body
                self._write(f"{bundle.KEYS}/{wanted}.asc", openpgp.keyring(text.decode(), wanted))
            except (Unreachable, ValueError) as error:
                why = why or str(error)
            else:
                self.say(f"the apt key {wanted}")
                return
        self.say(f"the apt key {wanted} could not be fetched: hosts that need it will be refused ({why})")

    def _flash(self) -> None:
        """flash-attn's wheel, an attempt here too: SDPA does without."""
        flash = self.stack.flash_attn
        if flash is None or self.knobs.flash_attn == "off":
            return
        wheel = flash.wheels.get("cp" + self.knobs.python.replace(".", "")) or flash.wheels.get("py3")
        base = self.knobs.source_flash_attn or (load_sources().flash_attn.url if flash.in_default_source else None)
        if wheel is None or wheel.sha256 is None or base is None:
            return
        try:
            self._companions(flash.package)
            self._take(f"flash-attn/v{flash.version}/{wheel.name}",
                       f"{base.rstrip('/')}/v{flash.version}/{quote(wheel.name)}", wheel.sha256,
                       self.knobs.source_flash_attn)
            self.say(f"flash-attn: {wheel.name}")
        except Unreachable as error:
            self.say(f"flash-attn: left out, hosts will use SDPA ({error})")

    def _companions(self, package: str) -> None:
        """What flash-attn imports and no lock has, for the bundle's own index. Raises Unreachable."""
        source, bounds = load()
        index = self.knobs.source_pip_index or preflight.default_index(configured=True) or ""
        for wanted in bounds.companions if package == source.package else ():
            answer = get(pages.page_url(index, wanted.name), load_limits().lookup_seconds, pages.ACCEPT, own=index)
            found = [file for file in pages.parse(answer.body, answer.kind, answer.url)
                     if file.sha256 == wanted.sha256]
            if not found:
                raise Unreachable(f"{bare(index)} has no {wanted.name} {wanted.version} of the pinned sha256")
            self._take(f"wheels/{found[0].name}", found[0].url, wanted.sha256, index)


def solved(conda: str | None, installer: Path, channel: str, python: str) -> list[dict[str, Any]]:
    """The packages that a conda (None: the one in Miniforge's installer) would fetch for a Python and pip, as the
    channel's index has them. Raises RigError."""
    with tempfile.TemporaryDirectory() as scratch:
        if conda is None:
            conda = f"{scratch}/conda/bin/conda"
            _run(["bash", str(installer), "-b", "-p", f"{scratch}/conda"], scratch)
        said = _run([conda, "create", "--dry-run", "--json", "-p", f"{scratch}/env", "--override-channels",
                     "-c", channel, f"python={python}", "pip"], scratch)
    try:
        rows: list[dict[str, Any]] = json.loads(said)["actions"]["FETCH"]
        if not all(isinstance(row[key], str) for row in rows for key in ("subdir", "fn", "url", "sha256")):
            raise TypeError
    except (ValueError, KeyError, TypeError) as error:
        raise RigError(f"conda's plan can't be read ({type(error).__name__})", "bundle",
                       "name another with --conda") from None
    for row in rows:  # where its file is put is the channel's word
        path = f"{row['subdir']}/{row['fn']}"
        if not PACKAGE.fullmatch(path):
            raise RigError(f"{bare(channel)} names a package {shown(path)}", "conda channel", "take another channel")
    return rows


def repodata(subdir: str, packages: Mapping[str, Mapping[str, Any]]) -> str:
    """A channel's index of these packages, one a line."""
    lines = {kind: ",\n".join(f"  {json.dumps(name)}: {json.dumps(row)}" for name, row in sorted(packages.items())
                              if name.endswith(".conda") == (kind == "packages.conda"))
             for kind in ("packages", "packages.conda")}
    return (f'{{\n"info": {{"subdir": {json.dumps(subdir)}}},\n"packages": {{\n{lines["packages"]}\n}},\n'
            f'"packages.conda": {{\n{lines["packages.conda"]}\n}},\n"repodata_version": 1\n}}\n')


def _run(command: list[str], scratch: str) -> str:
    """What a program prints. Its caches go to `scratch`, so that it plans to fetch everything."""
    if shutil.which(command[0]) is None:
        raise RigError(f"there is no {command[0]}", "bundle", "name a conda with --conda")
    environment = {**os.environ, "CONDA_PKGS_DIRS": f"{scratch}/pkgs", "CONDA_SUBDIR": "linux-64", "HOME": scratch}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, env=environment,
                              stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired:
        raise RigError(f"{Path(command[0]).name} took more than {SECONDS} s", "bundle",
                       "name another with --conda") from None
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["it said nothing"]
        raise RigError(f"{Path(command[0]).name} failed: {said[0][:200]}", "bundle",
                       "on a machine that isn't Linux on x86_64, name a conda with --conda")
    return done.stdout
