"""What is looked at before pyinfra's command line does anything: config.py, where our run begins, is read only
after --chdir and --config have had their way, and not from every folder.

gevent, which pyinfra's command line loads first, tells of itself by an entry point (pyproject.toml names this module).
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import wraps
from pathlib import Path
from typing import Any

from qwen_rig import project, values
from qwen_rig.errors import RigError


def watch(_: object = None) -> None:
    """Have pyinfra's command line looked at before it goes on; nothing where another program loads gevent."""
    named = Path(sys.argv[0])
    if named.stem == "pyinfra" or named.parts[-2:] == ("pyinfra", "__main__.py"):
        from pyinfra_cli import cli

        cli.cli.callback = _looked_at(cli.cli.callback, cli)


def _looked_at(begin: Any, cli: Any) -> Callable[..., None]:
    """What pyinfra's command line calls, once nothing is found against what was given."""

    @wraps(begin)
    def looked_at(**given: Any) -> None:
        _or_exit(lambda: refuse_bad_places(given))
        if _concerns_us(given):
            from qwen_rig import entry

            entry.tell_in_a_line()
            if _deploys(given):
                cli._set_override_data = _once_joined(cli._set_override_data)
        begin(**given)

    return looked_at


def _once_joined(act: Callable[..., Any]) -> Callable[..., Any]:
    """A step of pyinfra's that comes after config.py, and before it makes an inventory and dials."""

    @wraps(act)
    def joined(*arguments: Any, **more: Any) -> Any:
        from qwen_rig.run import adapter

        if adapter.attached(adapter.state_in_the_making()) is None:
            _or_exit(project.refuse_unread)
        return act(*arguments, **more)

    return joined


def _or_exit(act: Callable[[], None]) -> None:
    """Do it; a RigError is one line and the end."""
    try:
        act()
    except RigError as error:
        raise SystemExit(f"qwen-rig: {error}") from None


def refuse_bad_places(given: Mapping[str, Any]) -> None:
    """Raises RigError for a folder or a file by which pyinfra would stumble before it reads ours."""
    try:
        os.getcwd()
    except OSError:
        raise RigError("the current folder is gone", os.environ.get("PWD", "."), "cd to the project's folder") from None
    folder = given.get("chdir")
    if folder and not (os.path.isdir(folder) and os.access(folder, os.X_OK)):
        raise RigError(f"no such folder, or it can't be entered: {values.shown(folder)}", "--chdir",
                       "name the project's folder, where config.py is")
    config = str(given.get("config_filename"))
    if Path(folder or ".", config).is_dir():
        raise RigError(f"a config is a file, not a folder: {values.shown(config)}", "--config",
                       "leave --config out: the project's config.py is read")
    for name in (given.get("inventory"), *(given.get("operations") or ())):
        try:
            os.stat(str(name))
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                raise RigError(f"no file can be called so: {values.shown(str(name))}", "pyinfra's arguments",
                               "an inventory, then deploy files") from None


def _concerns_us(given: Mapping[str, Any]) -> bool:
    """Whether a file that was named uses this package, or pyinfra will stand in one of its projects."""
    named = (given.get("inventory"), *(given.get("operations") or ()))
    return project.is_project(Path(given.get("chdir") or ".")) or any(map(project.uses, _files(given, named)))


def _deploys(given: Mapping[str, Any]) -> bool:
    """Whether a deploy of this package is to be run, from whatever folder: it does so in our own run alone."""
    named = given.get("operations") or ()
    return any(str(name).startswith("qwen_rig.deploy.") for name in named[:1]) or any(
        map(project.deploys, _files(given, named)))


def _files(given: Mapping[str, Any], names: Iterable[Any]) -> Iterator[Path]:
    """The Python files among what was named; pyinfra looks for them from within --chdir, and for some from before."""
    for name in names:
        for path in (Path(str(name)), Path(given.get("chdir") or ".", str(name))):
            if path.suffix == ".py" and path.is_file():
                yield path
