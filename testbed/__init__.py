"""Real SSH hosts on this machine, for the demo and the tests; their GPU and NVIDIA's packages are EMULATED.

What is real: OpenSSH, a Debian userland with apt and dpkg, reboots, cables, disks, CPython, wheels from the index.
What is emulated: the GPU (PCI ids, /proc, /sys, nvidia-smi), NVIDIA's packages, the conda installer and channel.
"""

from ._shell import TestbedError
from .bed import Testbed
from .spec import HostInfo, HostSpec, Services

__all__ = ["HostInfo", "HostSpec", "Services", "Testbed", "TestbedError"]
