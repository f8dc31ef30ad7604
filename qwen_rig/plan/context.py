"""What the planners read: one host's state, the wanted stack, the knobs and the rules."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cached_property

from packaging.version import InvalidVersion, Version

from qwen_rig.catalog.models import Model, find, head_dims
from qwen_rig.catalog.rules import Rules
from qwen_rig.catalog.stack import Stack
from qwen_rig.domain import Domain, Identity, domain_of
from qwen_rig.facts.machine import Machine
from qwen_rig.facts.state import PciGpu, SmiGpu, State
from qwen_rig.flash.key import Known
from qwen_rig.frozen import frozen
from qwen_rig.knobs import Knobs
from qwen_rig.plan.model import Applied
from qwen_rig.training import LargestBatch

# `GRID T4-16Q`, `NVIDIA A100-1-5C`: the card, the slices, then GB and series (A, B, C, Q: NVIDIA vGPU user guide).
VGPU = re.compile(r"-(\d{1,3}[ABCQ](?:ME)?)$")
GIVEN_AWAY = ("vfio-pci", "pci-stub", "pciback", "xen-pciback")  # drivers that keep a card for a virtual machine


def version(text: str | None) -> Version | None:
    """A version that can be compared, or None where there is none or it can't be read."""
    try:
        return Version(text) if text else None
    except InvalidVersion:
        return None


@frozen
class Gpu:
    """A graphics card as the rules and nvidia-smi together know it; None where neither does.

    Under MIG a process sees one slice, and nvidia-smi's query tells the whole card's memory: memory_mib is None then.
    """

    name: str
    device_id: str | None
    compute_capability: Version | None
    memory_mib: int | None
    mig: bool = False

    @property
    def vgpu(self) -> str | None:
        """The profile of a virtual GPU, `96Q`, by which its name ends; None for a whole card."""
        found = VGPU.search(self.name)
        return found[1] if found else None


@frozen
class Context:
    """One host's plan in the making."""

    host: str
    state: State
    stack: Stack
    knobs: Knobs
    rules: Rules
    applied: Applied | None = None  # how this controller's last apply left the host
    largest: LargestBatch | None = None  # of its cards' certificates kept here, the smallest
    identity: Identity | None = None  # None: as the name alone
    shared_wheels: tuple[Known, ...] = ()  # flash-attn's, built by hosts of this one's trust domain
    peers_fail: bool = False  # NCCL's peer-to-peer between its cards, by their certificates

    @property
    def machine(self) -> Machine:
        return self.state.machine

    @property
    def who(self) -> Identity:
        """Which machine this is to the controller."""
        return self.identity or Identity(self.host)

    @cached_property
    def model(self) -> Model | None:
        """The model that is wanted, None where none is named."""
        return find(self.knobs.model, self.host) if self.knobs.model else None

    @property
    def head_dims(self) -> tuple[int, ...]:
        """What attention is proven for: the wanted model's head dimension, else those of all that the stack trains."""
        return (self.model.head_dim,) if self.model else head_dims(self.stack.trains)

    @cached_property
    def domain(self) -> Domain:
        """The trust domain that the host is in."""
        return domain_of(self.knobs.trust_domain, self.who)

    @property
    def foreign_kernel(self) -> bool:
        """Whether the kernel, and so the driver, belongs to somebody else (containers and WSL)."""
        return self.machine.kind in ("container", "wsl")

    @property
    def root(self) -> bool:
        """Whether apt, the driver and a reboot are within our rights, by uid or by sudo."""
        return self.machine.sudo not in ("none", "locked")

    @property
    def environment(self) -> dict[str, str]:
        """What training's environment must hold for these cards, by what their certificates say."""
        name, _, text = self.rules.peer_remedy.partition("=")
        return {name: text} if self.peers_fail and len(self.fit) > 1 else {}

    @cached_property
    def gpus(self) -> tuple[Gpu, ...]:
        """Each GPU once."""
        return gpus_of(self.state, self.rules)

    @cached_property
    def fit(self) -> tuple[Gpu, ...]:
        """The GPUs that training uses: those that the stack's torch has code for, or may have. All, where it has none
        for any, or the stack has no torch."""
        torch = self.stack.torch
        fit = tuple(gpu for gpu in self.gpus if torch is None or gpu.compute_capability is None
                    or self.rules.covered(torch.archs, gpu.compute_capability))
        return fit or self.gpus

    @cached_property
    def driver_floor(self) -> str:
        """The least driver version that serves the stack on every GPU here."""
        floors = [self.rules.least_driver(self.stack.cuda, gpu.compute_capability) for gpu in self.gpus]
        return max(floors, key=Version) if floors else self.rules.least_driver(self.stack.cuda, None)

    @property
    def driver_serves(self) -> bool:
        """Whether the driver that runs now serves the stack; False also where it is broken or unknown."""
        driver = self.state.driver
        loaded = version(driver.loaded_version)
        return driver.error is None and loaded is not None and loaded >= Version(self.driver_floor)


def gpus_of(state: State, rules: Rules) -> tuple[Gpu, ...]:
    """Each GPU of a host once: by PCI id where the kernel shows them, else as nvidia-smi lists them. Not those that
    the kernel keeps for a virtual machine, nor, in a container, those of its host that it wasn't given."""
    listed, found = _by_slot(state), []
    for pci in state.pci_gpus:
        if given_away(pci) or _withheld(state, pci, listed):
            continue
        row, smi = rules.gpu(pci.device_id), listed.pop(pci.slot.lower(), SmiGpu())
        found.append(Gpu(
            name=smi.name or (row.name if row else f"NVIDIA GPU {pci.device_id}"),
            device_id=pci.device_id,
            compute_capability=version(smi.compute_capability or (row.compute_capability if row else None)),
            memory_mib=None if smi.mig else smi.memory_mib or (row.memory_mib if row else None),
            mig=bool(smi.mig),
        ))
    found += [Gpu(smi.name or "NVIDIA GPU", None, version(smi.compute_capability),
                  None if smi.mig else smi.memory_mib, bool(smi.mig)) for smi in listed.values()]
    return tuple(found)


def nova_holds(state: State) -> bool:
    """Whether nova_core, the kernel's own new driver, has a card (it names itself NovaCore)."""
    return any((pci.driver or "").lower().replace("_", "").replace("-", "").startswith("nova")
               for pci in state.pci_gpus)


def given_away(pci: PciGpu) -> bool:
    """Whether the kernel keeps the card for a virtual machine."""
    return pci.driver in GIVEN_AWAY


def _withheld(state: State, pci: PciGpu, listed: Mapping[str, SmiGpu]) -> bool:
    """Whether a card on a container's bus is not the container's: nvidia-smi answers there, and lists others alone."""
    answers = state.machine.kind == "container" and state.driver.error is None and bool(state.gpus)
    return answers and all(gpu.slot for gpu in state.gpus) and pci.slot.lower() not in listed


def unlisted(state: State) -> tuple[PciGpu, ...]:
    """The cards on the bus that nvidia-smi, which answers and has a row for each other, lists nothing of."""
    if state.driver.error is not None or not state.gpus or state.machine.kind == "container":
        return ()
    listed = _by_slot(state)
    return tuple(pci for pci in state.pci_gpus if pci.slot.lower() not in listed and not given_away(pci))


def _by_slot(state: State) -> dict[str, SmiGpu]:
    """nvidia-smi's GPUs by slot. Those whose bus id it withholds are the cards that no other row speaks of: each such
    card's own row where there are as many of both, since both are in the bus's order; what is over has no slot."""
    known = {gpu.slot: gpu for gpu in state.gpus if gpu.slot}
    unplaced = [gpu for gpu in state.gpus if not gpu.slot]
    unseen = [slot for pci in state.pci_gpus if (slot := pci.slot.lower()) not in known]
    if len(unplaced) == len(unseen):
        return known | dict(zip(unseen, unplaced, strict=True))
    return known | {f"no slot {n}": gpu for n, gpu in enumerate(unplaced[len(unseen):])}


def gib(mib: float) -> str:
    """Mebibytes as people say them."""
    return f"{mib / 1024:.1f} GiB"
