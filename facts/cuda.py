"""CUDA toolkits: every nvcc on the host."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qwen_rig.facts import _nvcc, _sh
from qwen_rig.facts._fact import ProbeFact


class CudaToolkits(ProbeFact[list[dict[str, Any]]]):
    """Each distinct nvcc (PATH, CUDA_HOME, /usr/local/cuda*, /usr/bin), by the toolkit's folder.

    An nvcc that doesn't answer is listed with `release` and `version` None: broken is not absent.

    **Example:**

    .. code:: python

        [{"path": "/usr/local/cuda-12.8", "release": "12.8", "version": "12.8.93"}]
    """

    default = list

    def command(self) -> str:
        """Runs `nvcc --version` once for each."""
        return _sh.script(_nvcc.SECTIONS)

    def read(self, text: Mapping[str, str]) -> list[dict[str, Any]]:
        """The toolkits in the order in which a shell would meet them."""
        return list(_nvcc.read(text["cuda"]))
