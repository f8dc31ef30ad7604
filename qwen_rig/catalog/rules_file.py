"""The form of qwen_rig/data/rules.yml and of qwen_rig/data/gpus.yml. Each block names its source."""

from __future__ import annotations

from qwen_rig.catalog.datafile import Flag, MaybeTexts, Row, Text, Texts, VersionText, Whole
from qwen_rig.catalog.stack_types import FlashRelease
from qwen_rig.frozen import frozen


@frozen
class _Modules(Row):
    open_from: VersionText
    proprietary_below: VersionText
    proprietary_until: Whole
    source: Text


@frozen
class _Legacy(Row):
    below: dict[VersionText, Whole]
    source: Text


@frozen
class _Branches(Row):
    until: dict[Whole, Text]
    source: Text


@frozen
class _Conda(Row):
    oldest: VersionText
    shebang: Whole
    source: Text


@frozen
class _Nvswitch(Row):
    source: Text
    board: Whole
    chips: MaybeTexts = ()
    nvlsm_chips: MaybeTexts = ()


@frozen
class _PciePeers(Row):
    capabilities: tuple[VersionText, ...]
    remedy: Text
    source: Text


@frozen
class _CudaRelease(Row):
    driver: VersionText
    compatible: VersionText


@frozen
class _Cuda(Row):
    source: Text
    new_from: VersionText
    new_driver: VersionText
    releases: dict[VersionText, _CudaRelease]


@frozen
class _DriverCuda(Row):
    source: Text
    branches: dict[Whole, VersionText]


@frozen
class _Compat(Row):
    never: Texts
    perhaps: Texts
    source: Text


@frozen
class _Nvcc(Row):
    source: Text
    least: dict[VersionText, VersionText]
    glibc_source: Text
    glibc: dict[VersionText, VersionText]


@frozen
class _TorchBuilds(Row):
    source: Text
    releases: dict[VersionText, Texts]


@frozen
class _TorchArchs(Row):
    source: Text
    builds: dict[Text, Texts]


@frozen
class _Machines(Row):
    remedy: Text
    source: Text


@frozen
class _FlashAttn(Row):
    source: Text
    releases: dict[VersionText, FlashRelease]


@frozen
class _Flavours(Row):
    open: Text
    proprietary: Text


@frozen
class _Distribution(Row):
    tested: Flag
    key: Text | None  # no default: a new row says which key it means
    bytes: Whole | None = None
    own: tuple[Whole, ...] = ()
    branches: tuple[Whole, ...] = ()


@frozen
class _OwnPackages(Row):
    open: Texts
    proprietary: Texts
    source: Text


@frozen
class _Drivers(Row):
    source: Text
    pinning_from: Whole
    pinning: Text
    pinned: _Flavours
    versioned: _Flavours
    distributions: dict[Text, _Distribution]
    own: _OwnPackages


@frozen
class _Toolkit(Row):
    source: Text
    packages: dict[VersionText, Text]
    bytes: Whole | None = None


@frozen
class _Compilers(Row):
    source: Text
    bytes: Whole | None = None


@frozen
class _Part(Row):
    installed: Whole
    fetched: Whole


@frozen
class _Room(Row):
    source: Text
    parts: dict[Text, _Part]


@frozen
class _BatchRow(Row):
    from_mib: Whole
    per_device: Whole


@frozen
class _Batch(Row):
    source: Text
    effective: Whole
    rows: tuple[_BatchRow, ...]


@frozen
class RulesFile(Row):
    """rules.yml."""

    unfit_remedy: Text
    machines: _Machines
    modules: _Modules
    legacy: _Legacy
    branches: _Branches
    nvswitch: _Nvswitch
    pcie_peers: _PciePeers
    conda: _Conda
    cuda: _Cuda
    driver_cuda: _DriverCuda
    compat: _Compat
    nvcc: _Nvcc
    torch_builds: _TorchBuilds
    torch_archs: _TorchArchs
    flash_attn: _FlashAttn
    drivers: _Drivers
    toolkit: _Toolkit
    compilers: _Compilers
    room: _Room
    batch: _Batch
    bf16_from: VersionText


@frozen
class _Chip(Row):
    compute_capability: VersionText
    cards: dict[Text, Text]


@frozen
class GpusFile(Row):
    """gpus.yml."""

    source: Text
    memory_source: Text
    memory_mib: dict[Text, Whole]
    chips: dict[Text, _Chip]
