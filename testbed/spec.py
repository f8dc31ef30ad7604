"""What a host should be, and what it is once it is up. Plain data, kept in the testbed's state file."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from . import models
from ._shell import TestbedError

# The password of the user `pw`. These hosts have no route out and live on a private bridge: it guards nothing.
PASSWORD = "testbed"
USERS = ("root", "dev", "pw", "nosudo")


@dataclass(frozen=True)
class HostSpec:
    """One host to bring up.

    driver   "VERSION:FLAVOUR" (e.g. "550.90.07:proprietary"): installed by dpkg and loaded from the first boot;
             on a container and on WSL, the outer driver that is handed in.
    nouveau  nouveau takes the GPU at every boot, unless it is blacklisted.
    toolkit  "12.4": an emulated nvcc below /usr/local/cuda-12.4, with the /usr/local/cuda link, owned by no package.
    root_mib size of the file system below /; None: this machine's own disk.
    user     root · dev (passwordless sudo) · pw (sudo asks for HostInfo.password) · nosudo.
    gpus     how many of that GPU; gpu=None: none at all.
    lanes    the PCIe width that its slot gives it.
    kind     metal: a machine with its own kernel and driver packages · vm: the same with a real systemd as pid 1 ·
             container: Docker's marks, and the outer host's driver mounted in · wsl: WSL's marks (EMULATED), and the
             driver of a Windows that isn't there.
    data     where a second disk is mounted (this machine's own room), the user's to write to; None: no such disk.
    memory_mib  what an EMULATED /sys/fs/cgroup/memory.max says; nothing enforces it but
             `Testbed.limit_memory`.
    compilers  gcc and g++ are there from the first boot, as on most machines that are rented; not on a vm.
    image    a folder made by `Testbed.commit`: the host starts from that disk instead of a bare one.
    """

    name: str
    gpu: str | None = "rtx5090"
    gpus: int = 1
    lanes: int = 16
    driver: str | None = None
    nouveau: bool = False
    toolkit: str | None = None
    kind: Literal["metal", "vm", "container", "wsl"] = "metal"
    data: str | None = None
    root_mib: int | None = None
    user: str = "root"
    memory_mib: int | None = None
    compilers: bool = True
    image: str | None = None

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,40}", self.name):
            raise TestbedError(f"host name {self.name!r} · lower-case letters, digits and dashes only")
        if self.gpu is not None and self.gpu not in models.MODELS:
            raise TestbedError(f"{self.name}: gpu {self.gpu!r} · known: {', '.join(models.MODELS)}")
        if self.user not in USERS:
            raise TestbedError(f"{self.name}: user {self.user!r} · known: {', '.join(USERS)}")
        if self.data is not None and not re.fullmatch(r"(/[a-z0-9-]+)+", self.data):
            raise TestbedError(f"{self.name}: data {self.data!r} · wanted a path such as /workspace")
        if self.driver is not None and not re.fullmatch(r"\d+\.\d+(\.\d+)?:(open|proprietary)", self.driver):
            raise TestbedError(f"{self.name}: driver {self.driver!r} · wanted VERSION:open or VERSION:proprietary")


@dataclass(frozen=True)
class HostInfo:
    """A host that is up: how to reach it, and what it was asked to be."""

    name: str
    address: str
    port: int
    user: str
    key: str
    password: str | None
    spec: HostSpec


@dataclass(frozen=True)
class Services:
    """What the bridge serves: URLs for the project's flat knobs, and what a test may want to break.

    broken and hang stand for a mirror that answers 404, and one that takes the request and never answers;
    hub for the Hugging Face Hub, with make-believe models (testbed/hub.py).
    """

    base: str
    pip_index: str
    conda_channel: str
    miniforge: str
    miniforge_sha256: str
    nvidia_apt: str
    nvidia_apt_key: str
    flash_attn: str
    broken: str
    hang: str
    requests: str
    hub: str
    python: str

    def knobs(self) -> dict[str, str]:
        """The host data that point the project here."""
        return {"source_pip_index": self.pip_index, "source_conda_channel": self.conda_channel,
                "source_miniforge": self.miniforge, "source_miniforge_sha256": self.miniforge_sha256,
                "source_nvidia_apt": self.nvidia_apt, "source_nvidia_apt_key": self.nvidia_apt_key,
                "source_flash_attn": self.flash_attn}
