"""What a host has written down about its driver: the kernel's log, and apt's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qwen_rig.facts import _klog, _sh
from qwen_rig.facts._fact import ProbeFact


class KernelLog(ProbeFact[dict[str, Any]]):
    """This boot's kernel log, those of its newest lines that speak of NVIDIA's driver or of the PCI bus.

    Read without root: `source` is dmesg or journal, or None where neither may be read, and `why_not` then says why.
    No lines with a source means that there are none; without one it means nothing.

    **Example:**

    .. code:: python

        {"source": "dmesg", "why_not": None, "lines": ["[ 9.1] NVRM: Xid (PCI:0000:01:00): 79, GPU has fallen …"]}
    """

    default = _klog.EMPTY.copy

    def command(self) -> str:
        """dmesg, else journalctl -k -b."""
        return _sh.script({"log.kernel": _klog.SECTIONS["log.kernel"]})

    def read(self, text: Mapping[str, str]) -> dict[str, Any]:
        """The three keys above."""
        return _klog.kernel(text["log.kernel"])


class UnattendedDriverUpgrade(ProbeFact["dict[str, Any] | None"]):
    """The newest unattended upgrade of NVIDIA's packages that apt's history tells of; None where it tells of none.

    **Example:**

    .. code:: python

        {"when": "2021-04-24 06:50:54", "packages": {"libnvidia-common-460": ["460.56-0ubuntu…", "460.73.01-0ubuntu…"]}}
    """

    def command(self) -> str:
        """Reads /var/log/apt/history.log."""
        return _sh.script({"log.apt": _klog.SECTIONS["log.apt"]})

    def read(self, text: Mapping[str, str]) -> dict[str, Any] | None:
        """The two keys above, or None."""
        return _klog.upgrade(text["log.apt"])
