"""The NVIDIA driver: what the kernel runs, what is on disk, and what is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qwen_rig.facts import _dpkg, _driver, _sh, _smi
from qwen_rig.facts._fact import ProbeFact

SETUP = _smi.query() + _smi.TABLE


class NvidiaDriver(ProbeFact[dict[str, Any]]):
    """The driver. `error` is None only where nvidia-smi answers as it should; else one of not_installed,
    driver_not_loaded, driver_library_mismatch, no_devices, gpu_lost, gpu_requires_reset, insufficient_permissions,
    bad_query, unknown.

    `loaded_version` is what runs (on WSL the Windows driver's), `installed_version` what is on disk: the kernel
    module that the next boot would load, else the packages', else the library's. On WSL the two differ by nature.
    `flavour` is that of the loaded module; `cuda_version` the newest CUDA that the driver serves, as nvidia-smi
    says it.

    **Example:**

    .. code:: python

        {"loaded_version": "580.95.05", "installed_version": "580.95.05", "flavour": "open", "cuda_version": "13.0",
         "error": None}
    """

    @staticmethod
    def default() -> dict[str, Any]:
        """Nothing known: an error, never health."""
        return _short(_driver.EMPTY)

    def command(self) -> str:
        """/proc, /sys, modinfo, dpkg and nvidia-smi in one shell command."""
        return _sh.script(_driver.SECTIONS, SETUP)

    def read(self, text: Mapping[str, str]) -> dict[str, Any]:
        """The five keys above."""
        return _short(_driver.read(text))


def _short(driver: Mapping[str, Any]) -> dict[str, Any]:
    return {key: driver[key] for key in ("loaded_version", "installed_version", "flavour", "cuda_version", "error")}


class NvidiaPackages(ProbeFact[dict[str, str]]):
    """Installed Debian packages that matter to a GPU (nvidia, cuda, linux-headers), name → version; `{}` without dpkg.

    **Example:**

    .. code:: python

        {"nvidia-open": "580.95.05-1", "linux-headers-amd64": "6.1.158-1"}
    """

    default = dict

    def command(self) -> str:
        """Asks dpkg-query, which reads its database and locks nothing."""
        return _sh.script(_dpkg.SECTIONS)

    def read(self, text: Mapping[str, str]) -> dict[str, str]:
        """Packages in state `ii` or `hi`; half-installed ones are not installed."""
        return _dpkg.read(text["dpkg"])
