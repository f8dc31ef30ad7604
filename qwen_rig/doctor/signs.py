"""What the doctor asks of a host's state: signs that rows name, and the host's own words. Pure."""

from __future__ import annotations

from typing import Any

from qwen_rig.catalog.rules import Rules, load_rules
from qwen_rig.facts.state import State
from qwen_rig.plan.context import Gpu, gpus_of


def signs(state: State, rules: Rules | None = None) -> dict[str, Any]:
    """What the rows' `facts` may ask about, out of a host's state (facts.state.State), flat."""
    rules = rules or load_rules()
    machine, driver, upgrade = state.machine, state.driver, state.driver_upgrade
    gpus: tuple[Gpu, ...] = gpus_of(state, rules)
    moved = next(iter(upgrade.packages.items()), None) if upgrade else None
    return {
        "driver_error": driver.error,
        "driver_flavour": driver.flavour or driver.installed_flavour,
        "loaded": driver.loaded_version, "installed": driver.installed_version,
        "nouveau": driver.nouveau_loaded,
        "kind": machine.kind, "secure_boot": machine.secure_boot, "headers": machine.headers,
        "kernel": machine.kernel, "dkms": machine.tools.dkms,
        "prebuilt": any(name.startswith("linux-modules-nvidia-") for name in state.dpkg),
        "needs_open": any(rules.flavour(gpu.compute_capability) == "open" for gpu in gpus),
        "upgraded_unattended": upgrade is not None,
        "upgraded": f"{moved[0]} {moved[1][0]} → {moved[1][1]}, {upgrade.when}" if upgrade and moved else None,
        "packages": dict(state.env.packages) if state.env else None,
    }


def words(state: State) -> list[str]:
    """What the host's own state says in words: nvidia-smi's failure and the kernel log's lines."""
    return [*filter(None, [state.driver.excerpt]), *state.kernel_log.lines]
