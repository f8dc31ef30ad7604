"""vast.ai: `vastai show instances --raw`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from qwen_rig import values
from qwen_rig.cloud.model import Instance, instance, rows, text


def read(data: Any, where: str, options: Mapping[str, Any]) -> Iterator[Instance]:
    """Each instance. Where port 22 is mapped directly that is dialled, else vast's proxy, whose port is one higher for
    jupyter images (so the CLI's own `ssh-url`, vast-ai/vast-python vast.py). Raises RigError.
    """
    for row in rows(data, where, "instances"):
        name = f"vast-{text(row, 'id', where)}"
        state = str(row.get("actual_status") or "unknown")
        address, port = _place(row)
        yield instance(where, name, address=address, port=port, user="root", running=state == "running", state=state,
                       label=row.get("label"), tags={"gpu": row.get("gpu_name")})


def _higher(port: Any) -> Any:
    """The port above; what is no port stays as it is, for `instance` to refuse."""
    try:
        return values.port(port) + 1
    except values.Wrong:
        return port


def _place(row: Mapping[str, Any]) -> tuple[Any, Any]:
    ports = row.get("ports")
    mapped = ports.get("22/tcp") if isinstance(ports, Mapping) else None
    if isinstance(mapped, list) and mapped and isinstance(mapped[0], Mapping) and row.get("public_ipaddr"):
        return str(row["public_ipaddr"]).strip(), mapped[0].get("HostPort", "")
    port = row.get("ssh_port", "")
    jupyter = "jupyter" in str(row.get("image_runtype") or "")
    return row.get("ssh_host"), _higher(port) if jupyter else port
