"""`lab-03 differs from the other five in: driver, PCIe width`: which hosts of a fleet are unlike the rest. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from qwen_rig.plan.context import Context

NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


def traits(ctx: Context) -> dict[str, str]:
    """What hosts of one fleet should have in common, by the name it is told under. No addresses, no UUIDs."""
    state, machine = ctx.state, ctx.machine
    driver, env = state.driver, state.env
    lanes = Counter(f"x{gpu.pcie_width}" for gpu in state.pci_gpus if gpu.pcie_width)
    return {
        "GPUs": _counted(Counter(gpu.name for gpu in ctx.gpus)),
        "driver": " ".join(filter(None, [driver.loaded_version, driver.flavour])) or "none",
        "PCIe width": _counted(lanes) or "not known",
        "system": f"{machine.os.id} {machine.os.version_id}",
        "kernel": machine.kernel,
        "kind": machine.kind,
        "CUDA toolkits": ", ".join(sorted({tool.release for tool in state.cuda if tool.release})) or "none",
        "cores": f"{machine.cores:g}",
        # Two machines of one make differ by a few MiB, which the firmware keeps
        "memory": f"{round(machine.memory_mib / 1024)} GiB",
        "stack": f"{ctx.stack.name} {ctx.stack.lock_id}",
        "env": f"{len(env.packages)} packages, torch {env.torch.version if env.torch else None}" if env else "none",
    }


def _counted(found: Mapping[str, int]) -> str:
    return ", ".join(f"{name} ×{n}" if n > 1 else name for name, n in sorted(found.items()))


def differences(fleet: Mapping[str, Mapping[str, str]]) -> list[str]:
    """A line for each host that is unlike most others, with what it has and what they have.

    A trait counts where more than half of the fleet agree on it; where nobody is the majority (two hosts that
    differ), one line says in what they differ. Fewer than two hosts: nothing to say.
    """
    if len(fleet) < 2:
        return []
    unlike: dict[str, dict[str, tuple[str, str]]] = {}
    split: dict[str, dict[str, list[str]]] = {}
    for trait in next(iter(fleet.values())):
        holders: dict[str, list[str]] = {}
        for host, has in fleet.items():
            holders.setdefault(has[trait], []).append(host)
        usual = max(holders, key=lambda value: len(holders[value]))
        if len(holders) > 1 and 2 * len(holders[usual]) <= len(fleet):
            split[trait] = holders
            continue
        for host, has in fleet.items():
            if has[trait] != usual:
                unlike.setdefault(host, {})[trait] = (has[trait], usual)
    lines = [f"{host} differs from the other {_number(len(fleet) - 1)} in: {_listed(found)}"
             for host, found in unlike.items()]
    return lines + [f"the hosts differ in {trait}: " + "; ".join(f"{value} on {', '.join(hosts)}"
                                                              for value, hosts in holders.items())
                    for trait, holders in split.items()]


def _number(n: int) -> str:
    return NUMBERS[n] if n < len(NUMBERS) else str(n)


def _listed(found: Mapping[str, tuple[str, str]]) -> str:
    return ", ".join(f"{trait} ({has}, not {usual})" for trait, (has, usual) in found.items())
