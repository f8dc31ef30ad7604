"""Facts held against each other: what each of them is right in alone, and the host is not. Pure.

Driver against the CUDA that nvidia-smi tells, against fabric manager, against the cards on the bus; packages of two
drivers; cards whose peer-to-peer is known to hang.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from packaging.version import Version

from qwen_rig.facts.state import PciGpu
from qwen_rig.plan.context import Context, Gpu, given_away, unlisted, version
from qwen_rig.plan.model import Refusal, Step
from qwen_rig.plan.planner import new_env

FABRIC = re.compile(r"(?:cuda-drivers-|nvidia-)fabric-?manager(?:-\d+)?(?:-server)?")
# Packages whose version is the driver's: the module's, and the libraries' that talk to it.
MODULES = re.compile(r"nvidia-(?:(?:open-)?kernel(?:-open)?-dkms|dkms(?:-\d+)?(?:-server)?(?:-open)?)")
LIBRARIES = re.compile(r"libnvidia-compute(?:-\d+)?(?:-server)?|libcuda1|libnvidia-ml1")
CANONICAL = re.compile(r"-0ubuntu0\.\d\d\.\d\d")  # how Ubuntu's own archive ends the driver's version
LOST = "look at power, slot and temperature, and at `dmesg`; software can't mend it"


def refusals(ctx: Context, steps: Sequence[Step]) -> list[Refusal]:
    """Why nothing on this host could use its cards, whatever is installed."""
    return [*_failed(ctx), *_unlisted(ctx, steps), *_fewer(ctx), *_compat(ctx, steps), *_fabric(ctx, steps)]


def caveats(ctx: Context, steps: Sequence[Step]) -> list[str]:
    """What must be known of a host that may work all the same."""
    return [*_given_away(ctx), *_left_out(ctx), *_compat_works(ctx, steps), *_fabric_may_lack(ctx, steps),
            *_mixed(ctx, steps), *_virtual(ctx), *_peers(ctx, steps), *_ended(ctx, steps)]


def _changes(steps: Sequence[Step], name: str) -> bool:
    return any(step.component == name and step.action.changes for step in steps)


# ---- The cards ----------------------------------------------------------------------------------------------------

def _failed(ctx: Context) -> list[Refusal]:
    """A card of which nvidia-smi, which lists it, tells nothing: it fell out of reach after the driver's start."""
    mute = [row.index if row.index is not None else at for at, row in enumerate(ctx.state.gpus) if row.mute]
    if not mute or ctx.state.driver.error == "gpu_lost":  # said by the driver's own refusals
        return []
    return [Refusal(f"nvidia-smi tells nothing of GPU {', '.join(map(str, mute))} of {len(ctx.state.gpus)}: "
                    f"it doesn't answer", _hardware(ctx))]


def _hardware(ctx: Context) -> str:
    return f"the cards belong to this {ctx.machine.kind}'s host: rent another" if ctx.foreign_kernel else LOST


def why_left_out(ctx: Context, pci: PciGpu) -> str:
    """Why the driver that runs takes no notice of a card on the bus; "" where nothing that is known tells."""
    driver, row = ctx.state.driver, ctx.rules.gpu(pci.device_id)
    capability = version(row.compute_capability) if row else None
    loaded, last, flavour = version(driver.loaded_version), ctx.rules.last_branch(capability), \
        ctx.rules.flavour(capability)
    if loaded and last and loaded.major > last:
        return f"driver {loaded.major} leaves it out: {last} is the last branch that knows it"
    if flavour and driver.flavour and flavour != driver.flavour:
        return f"it runs on {flavour} kernel modules only, and {driver.flavour} ones are loaded"
    if pci.driver and pci.driver != "nvidia":
        return f"{pci.driver} holds it"
    return ""


def _unlisted(ctx: Context, steps: Sequence[Step]) -> list[Refusal]:
    """Cards on the bus of which nvidia-smi, which answers for the others, has no row."""
    if _changes(steps, "driver") or _changes(steps, "reboot"):
        return []
    lost = [pci.slot for pci in unlisted(ctx.state) if not why_left_out(ctx, pci)]
    if not lost:
        return []
    here = len(ctx.state.gpus) + len(lost)
    return [Refusal(f"nvidia-smi lists {len(ctx.state.gpus)} of {here} GPUs: {', '.join(lost)} is on the PCI bus and "
                    "missing from that list", LOST)]


def _left_out(ctx: Context) -> list[str]:
    return [f"{_name(ctx, pci)} ({pci.slot}): {why}; the other cards are used"
            for pci in unlisted(ctx.state) if (why := why_left_out(ctx, pci))]


def _name(ctx: Context, pci: PciGpu) -> str:
    row = ctx.rules.gpu(pci.device_id)
    return row.name if row else f"NVIDIA GPU {pci.device_id}"


def _given_away(ctx: Context) -> list[str]:
    return [f"{_name(ctx, pci)} ({pci.slot}): {pci.driver} keeps it for a virtual machine; it isn't used here"
            for pci in ctx.state.pci_gpus if given_away(pci)]


def _fewer(ctx: Context) -> list[Refusal]:
    """Another number of GPUs than the user expects."""
    wanted, here = ctx.knobs.expect_gpus, len(ctx.gpus) - sum(row.mute for row in ctx.state.gpus)
    if wanted is None or here == wanted:
        return []
    return [Refusal(f"{here} GPU{'s' * (here != 1)} here, and expect_gpus={wanted}",
                    "see `nvidia-smi -L` and `lspci -d 10de:` there; or correct expect_gpus")]


def _virtual(ctx: Context) -> list[str]:
    return [f"{gpu.name} is a virtual GPU ({gpu.vgpu}): a part of a card; its driver and licence are its host's matter"
            for gpu in ctx.gpus[:1] if gpu.vgpu]


def _peers(ctx: Context, steps: Sequence[Step]) -> list[str]:
    """Said while an env is still to be made: the certificate tries it then."""
    cards = [gpu for gpu in ctx.fit if by_pcie_alone(ctx, gpu)]
    if ctx.environment and (new_env(steps) or _changes(steps, "training")):
        return [f"NCCL's peer-to-peer between these cards fails, by their certificates: training sets "
                f"{ctx.rules.peer_remedy}"]
    if len(cards) < 2 or not new_env(steps):
        return []
    return [f"peer-to-peer between PCIe cards ({cards[0].name} ×{len(cards)}) hangs in NCCL on some machines: "
            f"`qwen-rig certify` tries it, and {ctx.rules.peer_remedy} avoids it"]


def by_pcie_alone(ctx: Context, gpu: Gpu) -> bool:
    """Whether the card reaches others by PCIe alone."""
    return gpu.compute_capability in ctx.rules.pcie_only and not gpu.vgpu


# ---- The driver and what stands beside it ---------------------------------------------------------------------------

def newer_cuda(ctx: Context) -> tuple[str, str] | None:
    """(the CUDA that nvidia-smi tells, the newest that its driver can have of itself), where the first is newer: compat
    libraries come first then."""
    said, own = version(ctx.state.driver.cuda_version), ctx.rules.own_cuda(ctx.state.driver.loaded_version)
    return (str(said), own) if said and own and said > Version(own) else None


def _in_front(ctx: Context, said: str, own: str) -> str:
    packages = sorted(name for name in ctx.state.dpkg if name.startswith("cuda-compat-"))
    return (f"nvidia-smi tells CUDA {said}, and driver {ctx.state.driver.loaded_version} has {own}: compat libraries "
            f"of a newer CUDA ({', '.join(packages) or 'cuda-compat'}) come first")


def _compat(ctx: Context, steps: Sequence[Step]) -> list[Refusal]:
    newer = newer_cuda(ctx)
    bad = sorted({gpu.name for gpu in ctx.gpus if ctx.rules.compat_runs(gpu.name) is False})
    if newer is None or not bad or _changes(steps, "driver"):
        return []
    image = f", or take an image of CUDA ≤ {newer[1]}" if ctx.foreign_kernel else ""
    return [Refusal(f"{_in_front(ctx, *newer)}, and on {', '.join(bad)} every CUDA call then ends in error 804",
                    "take /usr/local/cuda*/compat out of LD_LIBRARY_PATH and /etc/ld.so.conf.d (then `ldconfig`)"
                    f"{image}")]


def _compat_works(ctx: Context, steps: Sequence[Step]) -> list[str]:
    newer = newer_cuda(ctx)
    if newer is None or _changes(steps, "driver") or any(ctx.rules.compat_runs(gpu.name) is False for gpu in ctx.gpus):
        return []
    sure = all(ctx.rules.compat_runs(gpu.name) for gpu in ctx.gpus)
    return [f"{_in_front(ctx, *newer)}" + ("; data centre cards run by them" if sure else
                                           "; where this card isn't made for them, CUDA ends in error 804")]


def _bound(ctx: Context) -> list[Gpu]:
    """The cards that NVSwitches may join, where there are several."""
    found = [gpu for gpu in ctx.gpus if ctx.rules.switched(gpu.device_id)]
    return found if len(found) > 1 else []


def _fabric_versions(ctx: Context) -> dict[str, str]:
    """Fabric manager's packages → their version without revision."""
    return {name: _upstream(said) for name, said in ctx.state.dpkg.items() if FABRIC.fullmatch(name)}


def _upstream(said: str) -> str:
    return re.split(r"[-+~]", said.rpartition(":")[2])[0]


def _other_fabric(ctx: Context, steps: Sequence[Step]) -> str:
    """What is wrong with fabric manager beside the driver that is installed; "" for nothing, or nothing to compare."""
    driver = ctx.state.driver.loaded_version or ctx.state.driver.installed_version
    if ctx.foreign_kernel or not _bound(ctx) or driver is None or _changes(steps, "driver"):
        return ""
    found = {name: there for name, there in _fabric_versions(ctx).items() if there != driver}
    if not found or len(found) < len(_fabric_versions(ctx)):
        return ""
    name, there = next(iter(sorted(found.items())))
    return f"{name} is {there} and the driver {driver}: it doesn't start beside another version, and CUDA ends in " \
        "error 802"


def _fabric(ctx: Context, steps: Sequence[Step]) -> list[Refusal]:
    wrong, driver = _other_fabric(ctx, steps), ctx.state.driver.loaded_version
    if not wrong or len(_bound(ctx)) < ctx.rules.board:
        return []
    name = sorted(_fabric_versions(ctx))[0]
    return [Refusal(wrong, f"install the driver's own: apt-get install '{name}={driver}*', then "
                           "`systemctl restart nvidia-fabricmanager`")]


def _fabric_may_lack(ctx: Context, steps: Sequence[Step]) -> list[str]:
    bound, wrong = _bound(ctx), _other_fabric(ctx, steps)
    if not bound or ctx.foreign_kernel:
        return []
    if wrong and len(bound) < ctx.rules.board:
        return [f"{wrong}, where NVSwitches join these cards"]
    lacks = bool(ctx.state.dpkg) and not _fabric_versions(ctx) and len(bound) >= ctx.rules.board
    if not (lacks or _changes(steps, "driver")):
        return []
    manager = any((row := ctx.rules.gpu(gpu.device_id or "")) and row.chip in ctx.rules.nvlsm_chips for gpu in bound)
    return ["where NVSwitches join these cards, CUDA answers only beside a running nvidia-fabricmanager of the "
            f"driver's very version{' and nvlsm' if manager else ''}: this tool doesn't install "
            f"{'them' if manager else 'it'}"]


def _mixed(ctx: Context, steps: Sequence[Step]) -> list[str]:
    """Packages of two drivers, or of one driver by two makers: the next upgrade by apt breaks either."""
    if ctx.foreign_kernel or _changes(steps, "driver"):
        return []
    modules, libraries = ({name: said for name, said in ctx.state.dpkg.items() if kind.fullmatch(name)}
                          for kind in (MODULES, LIBRARIES))
    both = {**modules, **libraries}
    if modules and libraries and not {*map(_upstream, modules.values())} & {*map(_upstream, libraries.values())}:
        told = ", ".join(f"{name} {said}" for name, said in sorted(both.items()))
        return [f"packages of two drivers are installed ({told}): they don't work together"]
    makers = {bool(CANONICAL.search(said)) for said in both.values()}
    if len(makers) < 2 or ctx.machine.os.id != "ubuntu":
        return []
    told = ", ".join(f"{name} {said}" for name, said in sorted(both.items()))
    return [f"the driver's packages are from two archives ({told}): an upgrade may leave one behind"]


def _ended(ctx: Context, steps: Sequence[Step]) -> list[str]:
    """A driver whose branch gets no more fixes, by the host's own clock."""
    driver = ctx.state.driver.loaded_version
    until = ctx.rules.until(driver)
    if ctx.foreign_kernel or until is None or _changes(steps, "driver") or not ended(ctx, until):
        return []
    wanted = ctx.knobs.nvidia_driver_branch
    later = f" ({wanted} gets them until {end})" if (end := ctx.rules.until(str(wanted))) and end > until else ""
    return [f"driver {driver}: its branch has had no fixes since {until}{later}"]


def ended(ctx: Context, until: str) -> bool:
    """Whether that month, `2026-02`, is over by the host's own clock; False where it has none."""
    year, _, month = until.partition("-")
    # Days since 1970 of the month's end, near enough: a month has 30.44 days.
    days = (int(year) - 1970) * 365.2425 + int(month) * 30.44
    return ctx.machine.time > days * 86400
