"""One Python env, by its files."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from qwen_rig.facts import _dist, _sh
from qwen_rig.facts._fact import ProbeFact


class EnvPackages(ProbeFact["dict[str, Any] | None"]):
    """The packages of the env (conda's or venv) at `path`, read from its *.dist-info; None where there is no env.

    `packages` by canonical name; `duplicates`: names there in two versions (a broken upgrade); `gone`: what its
    Python lacks, a part or a file (by conda's record); `torn`: packages with a file that is gone or of another size
    than its RECORD says; `target`: where the env's link leads, None for a plain folder; `torch`: what torch/version.py
    says of its build.

    **Example:**

    .. code:: python

        {"path": "/root/miniforge3/envs/qwen-train", "target": ".qwen-train-0a1b2c3d4e5f-1", "python": "3.10.13",
         "gone": None, "packages": {"torch": "2.8.0", "trl": "0.11.0"}, "duplicates": [],
         "torn": {"trl": "trl/__init__.py was changed"},
         "torch": {"version": "2.8.0+cu128", "cuda": "12.8"}}
    """

    def command(self, path: str) -> str:
        """Lists file names and reads torch/version.py; runs no Python."""
        at = shlex.quote(path)
        return _sh.script({"env": f"{_dist.SHELL}\nif [ -d {at} ] || [ -L {at} ]; then env_files {at}; fi"})

    def read(self, text: Mapping[str, str]) -> dict[str, Any] | None:
        """The env, or None."""
        return next(iter(_dist.read(text["env"])), None)
