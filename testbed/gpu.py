"""The EMULATED GPU: what a host's boot lays over /sys and /proc, and what its disk holds from the start."""

from __future__ import annotations

import hashlib
import os
import shlex
from pathlib import Path

from . import nvidia
from ._shell import EMULATED, TestbedError
from .models import MODELS
from .spec import HostInfo, HostSpec

FOREIGN = ("container", "wsl")  # the kernel, and so the driver, is the machine's below
OUTER_SMI = {"container": "usr/bin/nvidia-smi", "wsl": "usr/lib/wsl/lib/nvidia-smi"}


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
        "GPU_COUNT": spec.gpus, "GPU_LANES": spec.lanes,
        "GPU_NAME": model.name, "GPU_DEVICE": model.device, "GPU_SUBSYSTEM": model.subsystem,
        "GPU_CLASS": model.pci_class, "GPU_AUDIO": model.audio or "", "GPU_MEMORY_MIB": model.memory_mib,
        "GPU_COMPUTE": model.compute, "GPU_MIG": model.mig, "GPU_FLAVOURS": " ".join(model.flavours),
        "GPU_FIRST_BRANCH": model.first_branch, "GPU_LAST_BRANCH": model.last_branch or 9999,
        "GPU_UUIDS": " ".join(uuids), "GPU_SLOTS": " ".join(slots), "NOUVEAU": "1" if spec.nouveau else "",
        "HOST_DRIVER": spec.driver if spec.kind in FOREIGN and spec.driver else "",
        "OUTER_SMI": OUTER_SMI.get(spec.kind, ""),
    }
    return "\n".join([*lines, *(f"{key}={shlex.quote(str(value))}" for key, value in values.items())]) + "\n"


def preinstalled(spec: HostSpec) -> list[str]:
    """The emulated packages that a host's dpkg holds before its first boot, as files of the repository."""
    if spec.kind in FOREIGN or spec.driver is None:
        return []
    version, flavour = spec.driver.split(":")
    return nvidia.driver_files(version, flavour, os.uname().release)


def seed(folder: Path, host: Path, spec: HostSpec) -> None:
    """Lay files onto a host's disk: a toolkit of no package, as a runfile leaves it; a container's marks; modules."""
    if spec.toolkit is not None:
        if spec.toolkit not in nvidia.NVCC:
            raise TestbedError(f"{spec.name}: toolkit {spec.toolkit} · known: {', '.join(nvidia.NVCC)}")
        for name, content in nvidia.toolkit_files(spec.toolkit).items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.encode() if isinstance(content, str) else content)
            path.chmod(0o755 if "/bin/" in name else 0o644)
        (folder / "usr/local/cuda").symlink_to(f"cuda-{spec.toolkit}")
    if spec.kind == "container":
        (folder / ".dockerenv").touch()
    if spec.kind in FOREIGN:
        _mounted(folder, host, spec)
    else:
        modules = folder / "usr/lib/modules" / os.uname().release
        modules.mkdir(parents=True)
        for name in ("modules.builtin", "modules.builtin.modinfo", "modules.order"):
            (modules / name).touch()


def _mounted(folder: Path, host: Path, spec: HostSpec) -> None:
    """The outer host's driver files, and the empty files in the container that they are mounted on."""
    if spec.driver is None:
        return
    version = spec.driver.split(":")[0]
    library = f"libnvidia-ml.so.{version}"
    (host / "mounted").mkdir()
    for name, text in (("nvidia-smi", nvidia.smi(version)), (library, f"{EMULATED}\n")):
        (host / "mounted" / name).write_text(text, encoding="utf-8")
        (host / "mounted" / name).chmod(0o755)
    for target in (OUTER_SMI[spec.kind], f"{nvidia.LIBRARIES}/{library}"):
        (folder / target).parent.mkdir(parents=True, exist_ok=True)
        (folder / target).touch(mode=0o755)
    (folder / nvidia.LIBRARIES / "libnvidia-ml.so.1").symlink_to(library)


def _uuid(name: str) -> str:
    digest = hashlib.sha1(name.encode()).hexdigest()
    return f"GPU-{digest[:8]}-{digest[8:12]}-{digest[12:16]}-{digest[16:20]}-{digest[20:32]}"
