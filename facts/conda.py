"""conda installations, by their files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qwen_rig.facts import _conda, _sh
from qwen_rig.facts._fact import ProbeFact


class CondaInstalls(ProbeFact[list[dict[str, Any]]]):
    """Every conda found in the usual places, on PATH, by CONDA_EXE or in ~/.conda/environments.txt. conda is not run.

    One that our own installer was cut off in is none: the next run begins it anew (deploy/conda/apply.py).

    `sound`: bin/conda, the Python it starts and conda's own record are there. `writable`: by the user who asks. `ours`
    stands only where our installer made it and it is broken.

    **Example:**

    .. code:: python

        [{"prefix": "/root/miniforge3", "version": "26.3.2", "kind": "miniforge", "sound": True, "writable": True,
          "envs": ["base", "qwen-train"]}]
    """

    default = list

    def command(self, conda_prefix: str | None = None) -> str:
        """`conda_prefix`: a further place to look, the first."""
        return _sh.script(_conda.SECTIONS, _conda.find(conda_prefix))

    def read(self, text: Mapping[str, str]) -> list[dict[str, Any]]:
        """The installations in the order of the places."""
        return _conda.read(text["conda"])
