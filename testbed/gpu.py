"""The EMULATED GPU: what a host's boot lays over /sys and /proc, and what its disk holds from the start."""

from __future__ import annotations

import hashlib
import shlex
from pathlib import Path

from ._shell import EMULATED
from .mirror import Distribution
from .models import MODELS
from .spec import HostInfo, HostSpec

NVCC_VERSIONS = {"12.4": "12.4.131", "12.6": "12.6.85", "12.8": "12.8.93"}


def environment(info: HostInfo) -> str:
    """The GPU as shell variables: the boot reads it, and the emulated nvidia-smi, as /run/testbed/gpu."""
    spec = info.spec
    lines = [f"# {EMULATED}: this is not a real GPU"]
    if spec.gpu is None:
        return "\n".join([*lines, "GPU_COUNT=0", "NOUVEAU="]) + "\n"
    model = MODELS[spec.gpu]
    uuids = [_uuid(f"{info.name}-{index}") for index in range(spec.gpus)]
    slots = [f"0000:{index + 1:02x}:00" for index in range(spec.gpus)]
    values = {
        "GPU_COUNT": spec.gpus, "GPU_NAME": model.name, "GPU_DEVICE": model.device, "GPU_SUBSYSTEM": model.subsystem,
        "GPU_CLASS": model.pci_class, "GPU_AUDIO": model.audio or "", "GPU_MEMORY_MIB": model.memory_mib,
        "GPU_COMPUTE": model.compute, "GPU_MIG": model.mig, "GPU_FLAVOURS": " ".join(model.flavours),
        "GPU_FIRST_BRANCH": model.first_branch, "GPU_LAST_BRANCH": model.last_branch or 9999,
        "GPU_UUIDS": " ".join(uuids), "GPU_SLOTS": " ".join(slots), "NOUVEAU": "1" if spec.nouveau else "",
        "HOST_DRIVER": spec.driver if spec.kind == "container" and spec.driver else "",
    }
    return "\n".join([*lines, *(f"{key}={shlex.quote(str(value))}" for key, value in values.items())]) + "\n"


def preinstalled(spec: HostSpec, dist: Distribution, repository: Path) -> list[str]:
    """The emulated packages that a host's dpkg holds before its first boot."""
    return []


def seed(folder: Path, spec: HostSpec) -> None:
    """A toolkit of no package, as a runfile leaves it; a container's marks."""


def _uuid(name: str) -> str:
    digest = hashlib.sha1(name.encode()).hexdigest()
    return f"GPU-{digest[:8]}-{digest[8:12]}-{digest[12:16]}-{digest[16:20]}-{digest[20:32]}"
