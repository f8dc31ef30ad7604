"""A host as a launch over several must know it: its cards, and what it tells of its network and its launch files."""

from __future__ import annotations

from typing import Any

from qwen_rig.errors import RigError
from qwen_rig.facts.launch import LaunchState
from qwen_rig.launch import NAMES, Member
from qwen_rig.plan import Context

from . import adapter
from .adapter import Host
from .programs import env_path
from .run import Run


def member(host: Host) -> Member:
    """The host as the plan needs it: probed, and its launch files read."""
    ctx = Run.of(host).memory.context(host)
    env, found = ctx.state.env, {}
    if env is not None:
        found = _told(host, env_path(ctx), ctx.knobs.timeout_probe)
    address = str(host.data.get("ssh_hostname") or host.name)
    return Member(
        host.name, address, env_path(ctx) if env else None, tuple(_uuids(ctx)),
        torch=env.packages.get("torch") if env else None, wanted=ctx.knobs.launch_address,
        port=ctx.knobs.launch_port, addresses=tuple((n, a, p) for n, a, p in found.get("addresses", [])),
        files=found.get("files", {}), about=f"{ctx.state.driver.loaded_version} {ctx.knobs.verification_gpu}",
        environment=ctx.environment, domain=ctx.domain)


def _told(host: Host, env: str, seconds: int) -> dict[str, Any]:
    """What the host tells of its network and its launch files. Raises RigError where that is odd."""
    told: dict[str, Any] = adapter.fact(host, LaunchState, env=env, names=",".join(NAMES), _timeout=seconds)
    if why := told.get("odd"):
        raise RigError(f"what it tells of its network can't be true: {why}", "", "look at `ip address` on that host")
    return told


def _uuids(ctx: Context) -> list[str]:
    """The cards by UUID; by PCI slot where no driver names them."""
    return [gpu.uuid for gpu in ctx.state.gpus if gpu.uuid] or [pci.slot for pci in ctx.state.pci_gpus]
