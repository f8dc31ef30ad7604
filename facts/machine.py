"""The host itself as typed nouns: system, disks, memory, user, tools, network. Made by facts.state.State.of.

None is "absent" or "not known", as each noun says; never "healthy". Pure: knows no pyinfra.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Any, ClassVar

from qwen_rig.catalog.marks import named
from qwen_rig.facts._cell import Cell, Release
from qwen_rig.frozen import frozen


@frozen
class Os:
    """The system by os-release(5). `id` "unknown": it can't be read."""

    id: str = "unknown"
    version_id: str = ""
    codename: str | None = None
    pretty: str = "unknown"


@frozen
class User:
    """The user that we log in as. `uid` -1: not known."""

    name: str = ""
    uid: int = -1
    home: str = ""


@frozen
class Disk:
    """A real file system. Sizes in MiB; `writable`: whether we may make a folder at its mount."""

    mount: str
    fstype: str
    free_mib: int
    size_mib: int = 0
    writable: bool = False


@frozen
class GpuUser:
    """A process that has a GPU open. `user` None: only nvidia-smi sees it; `name` None: nobody tells it."""

    pid: int
    user: Cell = None
    name: Cell = None

    def __str__(self) -> str:
        return f"{self.name or 'unknown'} (pid {self.pid}, {self.user or 'unknown'})"


@frozen
class AptLock:
    """Who holds one of apt's locks."""

    path: str
    pid: int
    name: str


@frozen
class Compilers:
    """Versions; None where that compiler is absent, or doesn't answer."""

    __pydantic_config__: ClassVar[dict[str, Any]] = named(gxx="g++")
    gcc: str | None = None
    gxx: str | None = None


@frozen
class Tools:
    """Whether these commands are there, of those that the plan or the doctor asks about; None: not known."""

    __pydantic_config__: ClassVar[dict[str, Any]] = named(apt_get="apt-get")
    apt_get: bool | None = None
    dkms: bool | None = None


@frozen
class Network:
    """What the host is told about the network. `nameservers`: their number, None where there is no resolv.conf;
    `pip_index`: `***@` in it stands for credentials; None: none is set."""

    proxies: Mapping[str, str] = field(default_factory=dict)
    tmpdir: str | None = None
    pip_index: str | None = None
    nameservers: int | None = None
    proxy_script: str | None = None


@frozen
class Machine:
    """The host itself (facts.host.Host). Memory in MiB, times in seconds, `time` since the epoch (0: not known).

    `kind`: bare_metal, vm, container, wsl or unknown; `sudo`: root, passwordless, password, locked or none;
    `secure_boot`: enabled, disabled, unsupported or unknown; `machine_id`: a hash of the machine's own id.
    `glibc`, `boot_id`, `machine_id`: None is not known. `virt`, `display_manager`, `apt_lock`: None is absent.
    `clock_offset_s`: how far its clock is ahead of the controller's, None where nobody has compared them.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = named(machine_id="machine")
    kind: str = "unknown"
    virt: str | None = None
    kind_evidence: tuple[str, ...] = ()
    init: str = "other"
    os: Os = Os()
    kernel: str = ""
    arch: str = ""
    glibc: Release = None
    boot_id: str | None = None
    machine_id: str | None = None
    hostname: str = ""
    uptime_s: int = 0
    time: int = 0
    headers: bool = False
    secure_boot: str = "unknown"
    disks: tuple[Disk, ...] = ()
    memory_mib: int = 0
    cores: float = 1.0
    compilers: Compilers = Compilers()
    user: User = User()
    sudo: str = "none"
    display_manager: str | None = None
    gpu_users: tuple[GpuUser, ...] = ()
    apt_lock: AptLock | None = None
    tools: Tools = Tools()
    network: Network = field(default_factory=Network)
    clock_offset_s: int | None = None
