"""Where a project's own files are: deploy entries, inventories, group data and config.py."""

from __future__ import annotations

from pathlib import Path

from qwen_rig.errors import RigError

SIGNS = ("config.py", "deploy/5090.py", "inventories")  # what every project has


def is_project(folder: Path) -> bool:
    """Whether a folder is a clone of this repository, or was made by `qwen-rig init`."""
    return all((folder / sign).exists() for sign in SIGNS)


def find() -> Path:
    """The current folder where it is a project, else the clone that this package lies in. Raises RigError."""
    for folder in (Path.cwd(), Path(__file__).resolve().parents[1]):
        if is_project(folder):
            return folder
    raise RigError("this folder is no qwen-rig project", str(Path.cwd()), "make one: qwen-rig init lab, then cd lab")
