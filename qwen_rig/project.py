"""Where a project's own files are: deploy entries, inventories, group data and config.py."""

from __future__ import annotations

import re
import sys
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

from qwen_rig import __version__
from qwen_rig.errors import RigError

TEMPLATE = Path(__file__).parent / "template"  # what `create` writes: in a clone links to the files at its top
HOSTS = "inventories/lab.yml"
SIGNS = ("config.py", "deploy/5090.py", "inventories")  # what every project has
_STAMP = re.compile(r"""^QWEN_RIG = (["'])(.*?)\1""", re.MULTILINE)  # config.py's line

READ = 1 << 16  # bytes of a Python file in which its imports stand
_USES = re.compile(rb"^[ \t]*(?:from|import) qwen_rig\b", re.MULTILINE)
_DEPLOYS = re.compile(rb"^[ \t]*(?:from|import) qwen_rig\.deploy\b", re.MULTILINE)


def uses(path: Path) -> bool:
    """Whether a file that is there imports this package."""
    return bool(_USES.search(_begin(path)))


def deploys(path: Path) -> bool:
    """Whether a file that is there imports a deploy of this package."""
    return bool(_DEPLOYS.search(_begin(path)))


def _begin(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(READ)
    except OSError:  # whoever runs it will say so
        return b""


def is_project(folder: Path) -> bool:
    """Whether a folder is a clone of this repository, or was made by `qwen-rig init`."""
    return all((folder / sign).exists() for sign in SIGNS)


def found() -> Path | None:
    """The current folder where it is a project, else the clone that this package lies in; None where there is none."""
    folders = (Path.cwd(), Path(__file__).resolve().parents[1])
    return next((folder for folder in folders if is_project(folder)), None)


def find() -> Path:
    """The project that a run takes its files from, of the package's own version. Raises RigError."""
    folder = found()
    if folder is None:
        raise RigError("this folder is not a qwen-rig project", str(Path.cwd()), "qwen-rig init lab makes one; cd lab")
    config = folder / "config.py"
    stamp = _STAMP.search(config.read_text(encoding="utf-8", errors="replace"))
    if error := mismatch(stamp[2] if stamp else None, str(config)):
        raise error
    return folder


def mismatch(version: str | None, where: str) -> RigError | None:
    """What to say of a project that another version has made; None where it is the package's own version."""
    if version == __version__:
        return None
    return RigError(f"the project is of qwen-rig {version or 'before 0.2.0'}, the installed package is {__version__}",
                    where, f"install {version or 'that version'}, or `qwen-rig init` a new folder and bring "
                           "inventories/ and group_data/ along")


def refuse_unread() -> None:
    """Raises the RigError of a pyinfra that has read no config.py of a project, so that no run has begun."""
    raise RigError("pyinfra has read no config.py of a qwen-rig project", str(Path.cwd()),
                   "cd to the project's folder, where config.py is, and leave --config out; your own inventory is "
                   "welcome there")


def create(folder: Path) -> None:
    """Write a project of this version into a new or empty folder; its lab.yml begins as the example. Raises RigError,
    before anything is written, where the folder holds something."""
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise RigError("it exists and is not an empty folder", str(folder), "name a new one: qwen-rig init lab")
        for source in sorted(TEMPLATE.rglob("*")):
            path = source.relative_to(TEMPLATE)
            if source.is_file() and "__pycache__" not in path.parts:
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                (folder / path).write_bytes(source.read_bytes())
        (folder / HOSTS).write_bytes((folder / HOSTS.replace(".yml", ".example.yml")).read_bytes())
    except OSError as error:
        raise RigError(f"it can't be written: {error.strerror}", str(folder), "name another folder") from None


def check_version(version: str) -> None:
    """End the process, with one line and status 1, where config.py is of another version than the package."""
    if error := mismatch(version, "config.py"):
        raise SystemExit(f"qwen-rig: {error}")


def name_facts() -> None:
    """Let `facts.gpu` name the module qwen_rig.facts.gpu, and so on: one module, so that each fact exists once."""
    package = import_module("qwen_rig.facts")
    sys.modules["facts"] = package
    for module in iter_modules(package.__path__):
        if not module.name.startswith("_"):
            sys.modules[f"facts.{module.name}"] = import_module(f"{package.__name__}.{module.name}")
