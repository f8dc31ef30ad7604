"""NVIDIA GPUs: as nvidia-smi lists them, and as the PCI bus shows them before there is a driver."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qwen_rig.facts import _pci, _sh, _smi
from qwen_rig.facts._fact import ProbeFact


class Gpus(ProbeFact[list[dict[str, Any]]]):
    """The GPUs that nvidia-smi lists; `[]` where it lists none, isn't there, or fails: facts.driver.NvidiaDriver
    tells which. Drivers that refuse `compute_cap` (before 510) are asked again without it.

    Names and ids are nvidia-smi's words, `memory_mib` is MiB of the whole card, also under MIG; each is None where
    nvidia-smi has no value to give ([N/A], [Unknown Error], ERR!). MIG devices are no GPUs.

    **Example:**

    .. code:: python

        [{"index": 0, "name": "NVIDIA GeForce RTX 5090", "uuid": "GPU-5e9b8082-77de-41fe-5c44-176ebbfb1c78",
          "pci_bus_id": "00000000:01:00.0", "memory_mib": 32607, "compute_capability": "12.0"}]
    """

    default = list

    def command(self) -> str:
        """One shell command, whichever way the driver must be asked."""
        return _sh.script({name: _smi.SECTIONS[name] for name in ("smi.csv", "smi.list")}, _smi.query(("compute_cap",)))

    def read(self, text: Mapping[str, str]) -> list[dict[str, Any]]:
        """The GPUs, without the key `mig` that the composite adds."""
        found = listed(text)
        for gpu in found:
            del gpu["mig"]
        return found


def listed(text: Mapping[str, str]) -> list[dict[str, Any]]:
    """The GPUs out of the sections that _smi.query fills, `mig` (True, False, or None where there is none) included."""
    rows, _ = _smi.read_csv(text["smi.csv"])
    return _smi.gpus(rows or _smi.read_list(text["smi.list"]))


def odd(text: Mapping[str, str]) -> dict[str, str]:
    """`memory.total of GPU 1` → the word that nvidia-smi has there for a value (_smi.odd_cells); and lines that are no
    rows, but for failures that the driver has as its error."""
    rows, rest = _smi.read_csv(text.get("smi.csv", ""))
    rest = "" if _smi.failure(rest) else rest
    if not rows:
        rows, rest = _smi.read_list(text.get("smi.list", "")), _smi.beside_list(text.get("smi.list", ""))
    line = _smi.excerpt(rest, 120)
    return _smi.odd_cells(rows) | ({"a line of its list": line} if rows and line else {})


class PciGpus(ProbeFact[list[dict[str, Any]]]):
    """NVIDIA GPUs on the PCI bus (/sys/bus/pci), with or without a driver; `[]` where there are none, and on WSL.

    **Example:**

    .. code:: python

        [{"slot": "0000:01:00.0", "device_id": "10de:2b85", "subsystem_id": "1458:4167", "class": "0300",
          "driver": "nouveau", "pcie_width": 16, "pcie_width_max": 16}]   # lanes now, and of card and slot together
    """

    default = list

    def command(self) -> str:
        """Reads /sys/bus/pci/devices."""
        return _sh.script(_pci.SECTIONS)

    def read(self, text: Mapping[str, str]) -> list[dict[str, Any]]:
        """One dict a GPU; bridges, audio and USB functions are none."""
        return list(_pci.read(text["pci"]))
