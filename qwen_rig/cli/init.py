"""`qwen-rig init FOLDER`: a folder with the files that a user edits or names to pyinfra; all else is in the package."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from qwen_rig import __version__, exits, project
from qwen_rig.cli import _output, _types

SUMMARY = "make a folder for your hosts: inventories, group_data, config.py, deploy entries"
EXAMPLES = ("qwen-rig init lab",)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    parser.add_argument("folder", type=_types.path, metavar="FOLDER", help="a new folder, or an empty one")


def run(options: argparse.Namespace) -> int:
    """0: made. Raises RigError where the folder isn't empty, or can't be written."""
    folder = options.folder
    project.create(folder)
    enter = "" if folder.resolve() == Path.cwd() else f"  cd {shlex.quote(str(folder))}\n"
    found = {"folder": str(folder.resolve()), "version": __version__, "hosts": project.HOSTS}
    _output.Output.of(options).result(found, lambda: (
          f"{folder}: made by qwen-rig {__version__}\nNext:\n{enter}"
          f"  edit {project.HOSTS}: addresses, users, keys of your hosts\n"
          "  qwen-rig plan      # or: pyinfra inventories/lab.py deploy/5090.py --dry"))
    return exits.OK
