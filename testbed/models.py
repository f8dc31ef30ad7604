"""The GPUs that a host may be given. All EMULATED: ids and names as the real cards report them, nothing computes.

PCI ids: the public pci.ids list. Names, memory and compute capability: what nvidia-smi prints on such cards.
Driver rules: Blackwell needs a 570 driver and open modules; open modules need Turing; 590 dropped Volta and Pascal
(NVIDIA's driver installation guide, unified support matrix).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Model:
    """One card. memory in MiB; branches are driver majors, None where there's no bound."""

    name: str
    device: str
    subsystem: str
    pci_class: str
    audio: str | None
    memory_mib: int
    compute: str
    flavours: tuple[str, ...]
    first_branch: int
    last_branch: int | None = None
    mig: str = "[N/A]"

    def serves(self, version: str, flavour: str) -> bool:
        """Whether a loaded driver finds this card."""
        branch = int(version.split(".")[0])
        return (flavour in self.flavours and branch >= self.first_branch
                and (self.last_branch is None or branch <= self.last_branch))


BOTH = ("open", "proprietary")

MODELS: dict[str, Model] = {
    "rtx5090": Model("NVIDIA GeForce RTX 5090", "10de:2b85", "1458:4167", "0300", "10de:22e8", 32607, "12.0",
                     ("open",), 570),
    "rtx4090": Model("NVIDIA GeForce RTX 4090", "10de:2684", "1043:889b", "0300", "10de:22ba", 24564, "8.9", BOTH, 520),
    "v100": Model("Tesla V100-PCIE-16GB", "10de:1db4", "10de:1214", "0302", None, 16384, "7.0",
                  ("proprietary",), 384, 580),
    "gtx1080": Model("NVIDIA GeForce GTX 1080", "10de:1b80", "1462:3362", "0300", "10de:10f0", 8192, "6.1",
                     ("proprietary",), 367, 580),
    "h100": Model("NVIDIA H100 80GB HBM3", "10de:2330", "10de:16c1", "0302", None, 81559, "9.0", BOTH, 520, None,
                  "Disabled"),
}
