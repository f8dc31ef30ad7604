"""Which real CPython the hosts' conda envs get: 3.10 where this machine has one to package, else the userland's."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from ._shell import TestbedError, run

WANTED = "3.10"
USERLAND = "/usr/bin/python3"  # Debian's own


@dataclass(frozen=True)
class Interpreter:
    """prefix: the tree to package, or None for the userland's own. packages: Debian packages with its libraries."""

    version: str
    prefix: Path | None
    packages: tuple[str, ...]

    @property
    def minor(self) -> str:
        """`3.10`."""
        return ".".join(self.version.split(".")[:2])

    def __str__(self) -> str:
        where = f"packaged from {self.prefix}" if self.prefix else f"the userland's own: no {WANTED} here to package"
        return f"CPython {self.version}, {where}"


@lru_cache(maxsize=1)
def choose() -> Interpreter:
    """The Python to package. Debian's own builds don't run from another prefix, so those are only the fallback."""
    for executable in _candidates():
        prefix = executable.resolve().parent.parent
        if prefix in (Path("/"), Path("/usr")) or not (prefix / "lib" / f"python{WANTED}" / "os.py").exists():
            continue
        try:
            version = run([executable, "-c", "import platform, ssl, sqlite3, ctypes, lzma, bz2, zlib\n"
                           "print(platform.python_version())"]).strip()
            return Interpreter(version, prefix, _packages(prefix))
        except TestbedError:
            continue
    version = run([USERLAND, "-c", "import platform; print(platform.python_version())"]).strip()
    return Interpreter(version, None, ("python3", "python3-venv"))


def _candidates() -> list[Path]:
    name = f"python{WANTED}"
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    managed = Path.home() / ".local" / "share" / "uv" / "python"
    found = [*sorted(pyenv.glob(f"versions/{WANTED}*/bin/{name}"), reverse=True),
             *sorted(managed.glob(f"cpython-{WANTED}*/bin/{name}"), reverse=True)]
    on_path = shutil.which(name)
    return [*found, *([Path(on_path)] if on_path else [])]


def _packages(prefix: Path) -> tuple[str, ...]:
    """The Debian packages that hold what the interpreter and its extensions link to, outside its own prefix."""
    extensions = prefix / "lib" / f"python{WANTED}" / "lib-dynload"
    modules = [path for path in extensions.glob("*.so") if "tkinter" not in path.name]
    links = run(["ldd", prefix / "bin" / f"python{WANTED}", *modules])
    libraries = {line.split("=>")[1].split()[0] for line in links.splitlines() if "=> /" in line}
    outside = sorted({name for name in libraries if not Path(name).is_relative_to(prefix)})
    # dpkg knows a file by the path it was shipped under, which usrmerge may have moved: ask for each of its names.
    names = {name: library for library in outside
             for name in (library, library.removeprefix("/usr"), str(Path(library).resolve()))}
    answer = subprocess.run(["dpkg-query", "-S", *names], text=True, capture_output=True, check=False).stdout
    owners = {path: owner.split(":")[0] for owner, _, path in (line.rpartition(": ") for line in answer.splitlines())}
    missing = set(outside) - {names[path] for path in owners if path in names}
    if missing:
        raise TestbedError(f"{', '.join(sorted(missing))} · belongs to no package")
    return tuple(sorted(set(owners.values())))
