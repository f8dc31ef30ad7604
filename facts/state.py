"""A host's state as typed nouns: made here, and here alone, from what facts.probe.HostState returns.

None is "absent" or "not known", as each noun says; never "healthy". A cell in which nvidia-smi has no value to give
([N/A], [Unknown Error], ERR!) is None. Pure: knows no pyinfra.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import field, replace
from functools import cache
from typing import Any, ClassVar, cast

from pydantic_core import SchemaValidator, ValidationError
from pydantic_core import __version__ as made_for

from qwen_rig.catalog.kept import found_again
from qwen_rig.catalog.marks import named
from qwen_rig.facts._cell import Cell, Flag, Number, Release
from qwen_rig.facts._faults import cut, faults, place_of
from qwen_rig.facts.machine import Machine
from qwen_rig.facts.records import Records
from qwen_rig.frozen import frozen


@frozen
class PciGpu:
    """A GPU on the PCI bus. `device_id`: `10de:2b85`; `driver`: the kernel's for it, None: none; widths in lanes, of
    now and of card and slot together, None: not told."""

    slot: str
    device_id: str
    subsystem_id: Cell = None
    driver: Cell = None
    pcie_width: Number = None
    pcie_width_max: Number = None


@frozen
class SmiGpu:
    """A GPU as nvidia-smi lists it; None in a cell: nvidia-smi has no value to give. `memory_mib`: MiB of the whole
    card, also under MIG; `compute_capability`: `12.0`; `mig`: whether MIG is on."""

    index: Number = None
    name: Cell = None
    uuid: Cell = None
    pci_bus_id: Cell = None
    memory_mib: Number = None
    compute_capability: Release = None
    mig: Flag = None

    @property
    def mute(self) -> bool:
        """Whether nvidia-smi tells neither what card it is nor which, nor where: it failed."""
        return not (self.name or self.uuid or self.slot)

    @property
    def slot(self) -> str | None:
        """The bus id as the kernel writes it, None where it is none: `00000000:01:00.0` and `0000:01:00.0` are one."""
        domain, colon, rest = (self.pci_bus_id or "").lower().partition(":")
        try:
            return f"{int(domain, 16):04x}:{rest}" if colon else None
        except ValueError:
            return None


@frozen
class Driver:
    """The driver (facts.driver.NvidiaDriver). `error` None: nvidia-smi answers as it should. Versions and flavours are
    None where there are none or they can't be told; `excerpt`: the words that tell the error."""

    loaded_version: Cell = None
    installed_version: Cell = None
    flavour: Cell = None
    installed_flavour: Cell = None
    cuda_version: Cell = None
    nouveau_loaded: bool = False
    error: str | None = "unknown"
    excerpt: str | None = None


@frozen
class Toolkit:
    """A CUDA compiler's folder. `release`: `12.8`; None where it doesn't answer."""

    path: str
    release: Release = None
    version: str | None = None


@frozen
class Conda:
    """A conda installation. `version` None: there's no record of it; `sound`: bin/conda, its Python and that record are
    there; `writable`: by us; `ours`: our installer made it, it is broken, and no mending has failed."""

    prefix: str
    version: str | None = None
    kind: str = "unknown"
    sound: bool = False
    writable: bool = False
    ours: bool = False
    envs: tuple[str, ...] = ()


@frozen
class Condarc:
    """What conda's configuration files say of channels and envs (facts/_condarc.py); `***` has credentials in it."""

    channel_alias: str | None = None
    custom_channels: Mapping[str, str] = field(default_factory=dict)
    envs_dirs: tuple[str, ...] = ()

    def channel(self, name: str) -> str | None:
        """Where conda takes a channel from that is named so; None where that is nobody's setting."""
        base = self.custom_channels.get(name) or self.channel_alias
        return base if base in (None, "***") else f"{base.rstrip('/')}/{name}"


@frozen
class TorchBuild:
    """What torch/version.py says. `cuda` None: a CPU build."""

    version: str
    cuda: str | None = None


@frozen
class Env:
    """The wanted env, by its files. `target`: where its link leads, None for a plain folder; `python` None: it has
    none; `gone`: what its Python lacks, a part or a file, in words; `packages`: canonical name → version; `duplicates`:
    names there in two versions; `torn`: name → which of its files isn't as its RECORD says; `torch` None: no torch, or
    a version.py that can't be read."""

    path: str
    target: str | None = None
    python: str | None = None
    gone: str | None = None
    packages: Mapping[str, str] = field(default_factory=dict)
    duplicates: tuple[str, ...] = ()
    torn: Mapping[str, str] = field(default_factory=dict)
    torch: TorchBuild | None = None


@frozen
class Beside:
    """Files beside the records: sha256, None where absent. `snapshot` "whole": each file of the prefetched model."""

    __pydantic_config__: ClassVar[dict[str, Any]] = named(accelerate="accelerate.yaml", train_qwen="train_qwen.py")
    accelerate: str | None = None
    train_qwen: str | None = None
    snapshot: str | None = None


@frozen
class Generation:
    """A build of the env, or an env that somebody else made. `complete`: its build came to its end; `gone`: the part
    without which it runs nothing, in words; `beside` None: not looked at."""

    name: str
    path: str
    complete: bool = False
    gone: str | None = None
    records: Records = field(default_factory=Records)
    beside: Beside | None = None


@frozen
class Refused:
    """Something that is passed over, as others than root and we could have put it there. `kind`: own, root, conda, env,
    place, script or models (facts/_paths.py); `subject`: what falls by it, `at`: the component that is wrong; `why`,
    `remedy`: in words; `foreign`: somebody else made it."""

    kind: str
    subject: str
    at: str
    why: str
    remedy: str = ""
    foreign: bool = False


@frozen
class KernelLog:
    """Lines of this boot that speak of the driver or the bus. `source` None: it can't be read, `why_not` says why."""

    source: str | None = None
    why_not: str | None = None
    lines: tuple[str, ...] = ()


@frozen
class DriverUpgrade:
    """The newest unattended upgrade of the driver: package → (from, to)."""

    when: str
    packages: Mapping[str, tuple[str, str]] = field(default_factory=dict)


@frozen
class State:
    """All that a plan knows of a host (facts.probe.HostState).

    `env` None: absent; `driver_upgrade` None: none is told of. `files`: path → sha256, None: absent, or "unreadable";
    `texts`: of those that are small and readable. `problems`: part → why it couldn't be read; that part is empty.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = named(machine="host")
    machine: Machine = field(default_factory=Machine)
    pci_gpus: tuple[PciGpu, ...] = ()
    gpus: tuple[SmiGpu, ...] = ()
    driver: Driver = Driver()
    cuda: tuple[Toolkit, ...] = ()
    conda: tuple[Conda, ...] = ()
    condarc: Condarc = Condarc()
    env: Env | None = None
    generations: tuple[Generation, ...] = ()
    refused: tuple[Refused, ...] = ()
    dpkg: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str | None] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)
    kernel_log: KernelLog = KernelLog()
    driver_upgrade: DriverUpgrade | None = None
    problems: Mapping[str, str] = field(default_factory=dict)

    @staticmethod
    def ready() -> None:
        """Make what validates, which takes longer than any host's state: while the hosts are at work on theirs."""
        _validator()

    @staticmethod
    def of(raw: Any) -> State:
        """The state out of the fact's plain data. Never raises: what has another type is left out, and `problems` says
        so: a value, the row that can't do without that value, or the record that holds it."""
        if not isinstance(raw, dict) or not raw:
            return State(problems={"probe": "it brought no state"})
        try:
            return cast(State, _validator().validate_python(raw))
        except ValidationError as error:
            found, wrong = copy.deepcopy(raw), error
        said: dict[str, str] = {}
        while True:  # each time something is cut, and {} is right
            for at, why in faults(found, wrong):
                said[place_of(found, at)] = why
                cut(found, at)
            try:
                made = cast(State, _validator().validate_python(found))
            except ValidationError as error:
                wrong = error
                continue
            return replace(made, problems={**made.problems, **said})


@cache
def _validator() -> SchemaValidator:
    """What validates, by a schema that is kept from run to run: pydantic takes a tenth of a second to make it."""
    return SchemaValidator(found_again(f"state-{made_for}", _schema))


def _schema() -> Any:
    from pydantic import TypeAdapter
    return TypeAdapter(State).core_schema
