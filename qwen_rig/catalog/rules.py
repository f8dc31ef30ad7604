"""What GPUs, drivers, CUDA, nvcc and torch demand of each other: qwen_rig/data/rules.yml, loaded, checked and asked.

Each block there names its source.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

from packaging.version import Version

from qwen_rig.catalog.datafile import DATA, checked
from qwen_rig.catalog.driver_set import DriverSet
from qwen_rig.catalog.kept import kept
from qwen_rig.catalog.sources import Miniforge, NvidiaApt, Sources, load_sources
from qwen_rig.catalog.stack_types import FlashRelease
from qwen_rig.catalog.yamlfile import read
from qwen_rig.frozen import frozen

if TYPE_CHECKING:
    from qwen_rig.catalog.rules_file import RulesFile


@frozen
class GpuModel:
    """A card by its PCI id. memory_mib None: nobody has captured it."""

    name: str
    chip: str
    compute_capability: str
    memory_mib: int | None


@frozen
class Rules:
    """The tables of rules.yml with the questions asked of them."""

    gpus: dict[str, GpuModel]
    unfit_remedy: str
    machine_remedy: str
    open_from: Version
    proprietary_below: Version
    proprietary_until: int
    legacy: tuple[tuple[Version, int], ...]
    branches: dict[int, str]
    switched_chips: tuple[str, ...]
    board: int
    nvlsm_chips: tuple[str, ...]
    pcie_only: tuple[Version, ...]
    peer_remedy: str
    new_from: Version
    new_driver: str
    oldest_conda: Version
    shebang: int
    cuda: dict[str, tuple[str, str]]
    driver_cuda: dict[int, str]
    compat_never: tuple[str, ...]
    compat_perhaps: tuple[str, ...]
    nvcc: tuple[tuple[Version, str], ...]
    nvcc_glibc: tuple[tuple[Version, str], ...]
    builds: dict[str, tuple[str, ...]]
    archs: dict[str, tuple[str, ...]]
    flash: dict[str, FlashRelease]
    drivers: dict[str, DriverSet]
    toolkits: dict[str, str]
    toolkit_bytes: int | None
    compilers_bytes: int | None
    room: dict[str, tuple[int, int]]
    effective_batch: int
    batch: tuple[tuple[int, int], ...]
    bf16_from: Version
    sources: Sources
    words: dict[str, str]

    @property
    def miniforge(self) -> Miniforge:
        return self.sources.miniforge

    @property
    def nvidia_apt(self) -> NvidiaApt:
        return self.sources.nvidia_apt

    def source(self, block: str) -> str:
        """Whose word a block of rules.yml is ("cuda", "modules", …). KeyError where there is no such block."""
        return self.words[block]

    def gpu(self, device_id: str) -> GpuModel | None:
        """The card of a PCI id ("10de:2b85"), None where the table doesn't know it."""
        return self.gpus.get(device_id.lower())

    def switched(self, device_id: str | None) -> bool:
        """Whether several such cards may be joined by NVSwitches; False for a card that the table doesn't know."""
        row = self.gpu(device_id) if device_id else None
        return row is not None and row.chip in self.switched_chips and "PCIe" not in row.name

    def covered(self, archs: Sequence[str], compute_capability: Version) -> bool:
        """Whether code for one of these architectures runs on a card of that compute capability."""
        return covered(archs, compute_capability)

    def flavour(self, compute_capability: Version | None) -> str | None:
        """The kernel modules the card insists on: "open" or "proprietary"; None where either will do, or not known."""
        if compute_capability is None:
            return None
        if compute_capability >= self.open_from:
            return "open"
        return "proprietary" if compute_capability < self.proprietary_below else None

    def last_branch(self, compute_capability: Version | None) -> int | None:
        """The last driver branch that still knows the card; None where there's no such end, or none is known."""
        if compute_capability is None:
            return None
        return next((last for below, last in self.legacy if compute_capability < below), None)

    def own_cuda(self, driver: str | None) -> str | None:
        """The newest CUDA release that a driver of that version can tell of itself; None where it isn't known."""
        branch = int(driver.partition(".")[0]) if driver and driver.partition(".")[0].isdecimal() else None
        return next((cuda for known, cuda in self.driver_cuda.items() if branch is not None and branch <= known), None)

    def compat_runs(self, name: str) -> bool | None:
        """Whether CUDA runs on a card by compat libraries of a newer CUDA than the driver's; None: on some such."""
        if any(word in name for word in self.compat_never):
            return False
        return None if any(word in name for word in self.compat_perhaps) else True

    def until(self, driver: str | None) -> str | None:
        """Until when a driver's branch gets fixes, `2028-06`; None where it isn't known."""
        branch = (driver or "").partition(".")[0]
        return self.branches.get(int(branch)) if branch.isdecimal() else None

    def least_driver(self, cuda: str, compute_capability: Version | None) -> str:
        """The least driver that runs that CUDA release on the card; an unknown card is taken for a new one.

        KeyError where the table lacks the CUDA release.
        """
        _, compatible = self.cuda[cuda]
        old = compute_capability is not None and compute_capability < self.new_from
        return compatible if old else max(compatible, self.new_driver, key=Version)

    def least_nvcc(self, compute_capability: Version | None) -> str:
        """The least nvcc that compiles for the card; an unknown card is taken for the newest in the table."""
        fitting = [nvcc for cc, nvcc in self.nvcc if compute_capability is None or compute_capability >= cc]
        return fitting[-1]

    def nvcc_beside(self, glibc: Version | None) -> str | None:
        """The least nvcc whose headers compile beside that glibc; None where any does, or the glibc isn't known."""
        fitting = [nvcc for least, nvcc in self.nvcc_glibc if glibc is not None and glibc >= least]
        return fitting[-1] if fitting else None

    def toolkit(self, cuda: str, least_nvcc: str) -> tuple[str, str] | None:
        """(nvcc release, package) to install for a torch of that CUDA: of its major, as torch takes no other, and as
        new as the cards want it; None where no such package is known."""
        major, least = Version(cuda).major, Version(least_nvcc)
        return next(((release, package) for release, package in self.toolkits.items()
                     if Version(release).major == major and Version(release) >= least), None)

    def torch_builds(self, release: str) -> tuple[str, ...]:
        """The CUDA builds published of a torch release ("2.5.1" → cu118 …), () where the table doesn't know it."""
        return self.builds.get(".".join(release.split(".")[:2]), ())

    def first_torch(self, cuda_tag: str) -> str | None:
        """The first torch with that CUDA build: "cu128" → "2.7"."""
        return next((release for release, tags in self.builds.items() if cuda_tag in tags), None)

    def what_exists(self, release: str, cuda_tag: str) -> str:
        """`: it exists for cu118 only, and cu128 begins with torch 2.7`, as far as the tables know; "" where they
        don't."""
        told = ""
        if builds := self.torch_builds(release):
            told += f": it exists for {', '.join(builds)} only"
        first = self.first_torch(cuda_tag)
        if first and Version(first) > Version(release):
            told += f", and {cuda_tag} begins with torch {first}"
        return told

    def serving(self, compute_capability: Version) -> list[str]:
        """The torch builds with code for a card, the newest first: "2.9 cu126"; [] where none in the table has."""
        found = [build for build, archs in self.archs.items() if covered(archs, compute_capability)]
        return sorted(found, key=lambda build: Version(build.split()[0]), reverse=True)

    def flash_torch(self) -> tuple[str, ...]:
        """Every torch release that some flash-attn release has a wheel for, the oldest first."""
        return tuple(sorted({torch for row in self.flash.values() for torch in row.torch}, key=Version))

    def driver_set(self, os_id: str, version_id: str) -> DriverSet | None:
        """The driver packages for a distribution (os-release's ID and VERSION_ID), None where there are none."""
        return self.drivers.get(f"{os_id}{version_id}".replace(".", ""))

    def batch_size(self, memory_mib: int | None) -> tuple[int, int]:
        """(samples per step, steps accumulated) for a card of that memory; unknown memory gets the smallest."""
        per_device = next(size for least, size in self.batch if (memory_mib or 0) >= least)
        return per_device, self.effective_batch // per_device


def covered(archs: Sequence[str], compute_capability: Version) -> bool:
    """Whether code for one of these architectures runs on a card of that compute capability.

    sm_86: machine code, for the same major and this or a later minor. compute_90: PTX, for anything from there on.
    sm_90a and similar: for that very card only. (CUDA C++ programming guide, "Compute capability".)
    """
    return any(_runs(arch, compute_capability) for arch in archs)


def _runs(arch: str, cc: Version) -> bool:
    kind, _, digits = arch.partition("_")
    number = digits.rstrip("af")
    if not number.isdecimal() or len(number) < 2:
        return False
    built = (int(number[:-1]), int(number[-1]))
    here = (cc.major, cc.minor)
    if number != digits:
        return here == built
    return here >= built if kind == "compute" else here[0] == built[0] and here[1] >= built[1]


def arch_of(compute_capability: Version) -> str:
    """`sm_120`."""
    return f"sm_{compute_capability.major}{compute_capability.minor}"


@cache
def load_rules() -> Rules:
    """The project's rules. Raises RigError naming file and key where the data is wrong."""
    return kept(DATA / "rules.yml", "rules", _rules)


def _rules() -> Rules:
    from qwen_rig.catalog.rules_file import RulesFile  # loaded only where these rules aren't kept
    file = checked(read(DATA / "rules.yml"), RulesFile)
    cards, cards_source = load_gpus()
    words = {name: block.source for name, block in vars(file).items() if hasattr(block, "source")}
    return Rules(
        gpus=cards, unfit_remedy=file.unfit_remedy, machine_remedy=file.machines.remedy,
        archs=file.torch_archs.builds, flash=file.flash_attn.releases,
        open_from=Version(file.modules.open_from), proprietary_below=Version(file.modules.proprietary_below),
        proprietary_until=file.modules.proprietary_until,
        legacy=tuple((Version(below), last) for below, last in file.legacy.below.items()), branches=file.branches.until,
        switched_chips=file.nvswitch.chips, board=file.nvswitch.board, nvlsm_chips=file.nvswitch.nvlsm_chips,
        pcie_only=tuple(map(Version, file.pcie_peers.capabilities)), peer_remedy=file.pcie_peers.remedy,
        oldest_conda=Version(file.conda.oldest), shebang=file.conda.shebang,
        new_from=Version(file.cuda.new_from), new_driver=file.cuda.new_driver, driver_cuda=file.driver_cuda.branches,
        compat_never=file.compat.never, compat_perhaps=file.compat.perhaps,
        nvcc_glibc=tuple((Version(glibc), least) for glibc, least in file.nvcc.glibc.items()),
        cuda={name: (row.driver, row.compatible) for name, row in file.cuda.releases.items()},
        nvcc=tuple((Version(cc), least) for cc, least in file.nvcc.least.items()),
        builds=file.torch_builds.releases,
        drivers=_drivers(file, load_sources()),
        toolkits=file.toolkit.packages, toolkit_bytes=file.toolkit.bytes, compilers_bytes=file.compilers.bytes,
        room={name: (row.installed, row.fetched) for name, row in file.room.parts.items()},
        effective_batch=file.batch.effective,
        batch=tuple((row.from_mib, row.per_device) for row in file.batch.rows),
        bf16_from=Version(file.bf16_from), sources=load_sources(),
        words={**words, "gpus": cards_source, "nvcc_glibc": file.nvcc.glibc_source})


def _drivers(file: RulesFile, sources: Sources) -> dict[str, DriverSet]:
    """Each distribution's driver packages, with the key that its row names. Raises RigError where sources.yml has no
    such key."""
    names, keys = file.drivers, sources.nvidia_apt.keys
    for folder, row in names.distributions.items():
        if row.key not in {None, *keys}:
            place = ("drivers", "distributions", folder, "key")
            raise read(DATA / "rules.yml").error(f"{'.'.join(place)}: sources.yml has no apt key {row.key!r}", place,
                                                 f"it has {', '.join(keys)}; null: the key isn't known")
    return {folder: DriverSet(folder, row.tested, keys[row.key] if row.key else None, row.bytes, names.pinning_from,
                              names.pinning, vars(names.pinned), vars(names.versioned), row.own, row.branches,
                              vars(names.own))
            for folder, row in names.distributions.items()}


@cache
def load_gpus() -> tuple[dict[str, GpuModel], str]:
    """(every card of qwen_rig/data/gpus.yml by PCI id "10de:2b85", their source). Raises RigError."""
    from qwen_rig.catalog.rules_file import GpusFile
    read_file = read(DATA / "gpus.yml")
    file = checked(read_file, GpusFile)
    memory, cards = dict(file.memory_mib), {}
    for chip, row in file.chips.items():
        for device, name in row.cards.items():
            cards[f"10de:{device}"] = GpuModel(name, chip, row.compute_capability, memory.pop(device, None))
    if memory:
        device = next(iter(memory))
        raise read_file.error(f"memory_mib names {device!r}, which is no card here", ("memory_mib", device),
                              "correct its id")
    return cards, f"{file.source}; memory: {file.memory_source}"
