"""Filling a bundle from outside: each file once, taken up again where it broke off, checked by hash as it comes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import quote

from packaging.utils import parse_wheel_filename

from qwen_rig import atomic, bundle, inside, openpgp
from qwen_rig.catalog.flash_build import load
from qwen_rig.catalog.limits import load_limits
from qwen_rig.catalog.lock import Requirement, read_lock, select
from qwen_rig.catalog.rules import load_rules
from qwen_rig.catalog.sources import load_sources
from qwen_rig.catalog.stack import Stack
from qwen_rig.errors import RigError
from qwen_rig.knobs import Knobs, stack_of
from qwen_rig.network import index as pages
from qwen_rig.network import preflight
from qwen_rig.network.fetch import Terms, digest, fetch
from qwen_rig.network.index import File
from qwen_rig.network.web import Unreachable, bare, get

AT_ONCE = 4
BUILD_TOOLS = ("setuptools", "wheel")  # what the few packages without a wheel are built with; no lock holds them
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

        Raises RigError where anything that a host can't do without can't be had; what was fetched stays for a next try.
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
        found: list[File] = []
        for part in (wanted, with_uv):  # uv apart: the lock may hold another uv as one of its packages
            look = preflight.look(index, part, python, own=True)  # the user's: a knob, or this machine's own pip
            if look.unchecked:
                raise Unreachable(look.unchecked)
            if look.missing:
                name, why = next(iter(sorted(look.missing.items())))
                raise RigError(f"{len(look.missing)} locked files can't be had from {bare(index)}: {name} "
                               f"{part[name].version} ({why})", "bundle", "take another source_pip_index")
            found += look.found.values()
        if self.stack.sdists:
            found += [self._newest(index, tool) for tool in BUILD_TOOLS]
        self.say(f"packages: {len(found)} files from {bare(index)}")
        by_name = {file.name: file for file in found}
        hashes = {each for part in (wanted, with_uv) for row in part.values() for each in row.hashes}

        def one(file: File) -> None:
            sha256 = self._take(f"wheels/{file.name}", file.url, file.sha256, index)
            if f"sha256:{sha256}" not in hashes and not file.name.startswith(BUILD_TOOLS):
                raise Unreachable(f"{file.name} from {bare(index)} isn't the locked file")

        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(one, by_name.values()))

    def _newest(self, index: str, name: str) -> File:
        """The newest release of a build tool, as the index has it: nothing of ours holds its hash."""
        answer = get(pages.page_url(index, name), load_limits().lookup_seconds, pages.ACCEPT, own=index)
        wheels = [file for file in pages.parse(answer.body, answer.kind, answer.url)
                  if file.name.endswith("-none-any.whl") and file.sha256]
        fitting = [(version, file) for file in wheels
                   if not (version := parse_wheel_filename(file.name)[1]).is_prerelease]
        if not fitting:
            raise Unreachable(f"{bare(index)} has no {name}")
        return max(fitting, key=lambda pair: pair[0])[1]

    def _miniforge(self) -> Path:
        release = load_sources().miniforge
        name = f"Miniforge3-{self.knobs.source_miniforge_version or release.version}-Linux-x86_64.sh"
        base = (self.knobs.source_miniforge or release.url).rstrip("/")
        self.say(f"Miniforge: {name}")
        self._take(f"miniforge/{name}", f"{base}/{name}", self.knobs.source_miniforge_sha256 or release.sha256,
                   self.knobs.source_miniforge)
        return self.folder / "miniforge" / name

    def _conda(self, conda: str | None, installer: Path) -> None:
        """Python and what it needs, as conda itself would take it; checked against the channel's own sums."""
        with tempfile.TemporaryDirectory() as scratch:
            if conda is None:
                conda = f"{scratch}/conda/bin/conda"
                _run(["bash", str(installer), "-b", "-p", f"{scratch}/conda"], scratch)
            channel = self.knobs.source_conda_channel or load_sources().conda_channel
            said = _run([conda, "create", "--dry-run", "--json", "-p", f"{scratch}/env", "--override-channels",
                         "-c", channel, f"python={self.knobs.python}", "pip"], scratch)
        try:
            rows = json.loads(said)["actions"]["FETCH"]
            wanted = [(row, row["subdir"], row["fn"], row["url"], row["sha256"]) for row in rows]
        except (ValueError, KeyError, TypeError) as error:
            raise RigError(f"conda's plan can't be read ({type(error).__name__})", "bundle",
                           "name another with --conda") from None
        self.say(f"Python {self.knobs.python} and what it needs: {len(wanted)} conda packages")
        shown: dict[str, dict[str, Any]] = {"linux-64": {}, "noarch": {}}
        for row, subdir, name, url, sha256 in wanted:
            self._take(f"conda/{subdir}/{name}", url, sha256, self.knobs.source_conda_channel)
            shown.setdefault(subdir, {})[name] = {key: value for key, value in row.items()
                                                  if key not in ("url", "fn", "channel", "schannel")}
        for subdir, packages in shown.items():
            self._write(f"conda/{subdir}/repodata.json", repodata(subdir, packages))

    def _write(self, path: str, text: str) -> None:
        target = inside.room(self.folder, path)
        atomic.write(target, text, folder_mode=0o777)
        self.files[path] = {"sha256": digest(target), "bytes": target.stat().st_size, "from": "written by us"}

    def _keys(self) -> None:
        """The keys of NVIDIA's repositories, one for several distributions; each is known by its fingerprint."""
        source, left_out = load_sources().nvidia_apt, set()
        for folder in load_rules().drivers:
            key = source.key_for(folder)
            wanted = (self.knobs.source_nvidia_apt_key or key.fingerprint).replace(" ", "").upper()
            path = f"{bundle.KEYS}/{wanted}.asc"
            if path in self.files:
                continue
            url = f"{(self.knobs.source_nvidia_apt or source.url).rstrip('/')}/{folder}/x86_64/{key.key}"
            with suppress(Unreachable, ValueError, UnicodeDecodeError):
                text = get(url, load_limits().lookup_seconds, own=self.knobs.source_nvidia_apt).body.decode()
                if openpgp.fingerprints(text) == [wanted]:
                    self._write(path, text)
                    continue
            left_out.add(wanted)
        kept = [path for path in self.files if path.startswith(f"{bundle.KEYS}/")]
        self.say(f"NVIDIA's apt keys: {len(kept)}")
        for wanted in sorted(left_out):
            if f"{bundle.KEYS}/{wanted}.asc" not in kept:
                self.say(f"the apt key {wanted} could not be had: hosts that need it will be refused")

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
