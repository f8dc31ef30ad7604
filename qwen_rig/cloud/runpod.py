"""RunPod: `runpodctl pod list` or `pod get`, `ssh info`, and the REST API's pods: three forms of one thing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from qwen_rig.cloud.model import Instance, instance, parts, rows, text


def read(data: Any, where: str, options: Mapping[str, Any]) -> Iterator[Instance]:
    """Each pod with its mapped port 22; the proxy that knows no scp is never used. Raises RigError."""
    for row in rows(data, where, "pods", "data"):
        state = str(row.get("desiredStatus") or ("RUNNING" if "ssh_command" in row else "unknown"))
        address, port = _place(row, where)
        # A pod may be wanted RUNNING and have no runtime yet: then it has no address either.
        running = state == "RUNNING" and address is not None
        yield instance(where, f"runpod-{text(row, 'id', where)}", address=address, port=port, user="root",
                       running=running, state=state if running or state != "RUNNING" else "starting",
                       label=row.get("name"), key=_key(row))


def _place(row: Mapping[str, Any], where: str) -> tuple[Any, Any]:
    runtime = row.get("runtime")
    for port in parts(runtime, "ports", where) if isinstance(runtime, Mapping) else []:
        if port.get("isIpPublic") and str(port.get("privatePort")) == "22":
            return port.get("ip"), port.get("publicPort", "")
    mappings = row.get("portMappings")
    if isinstance(mappings, Mapping) and mappings.get("22") and row.get("publicIp"):
        return row["publicIp"], mappings["22"]
    if row.get("ip") and "ssh_command" in row:
        return row["ip"], row.get("port", "")
    return None, None


def _key(row: Mapping[str, Any]) -> str | None:
    key = row.get("ssh_key")
    path = key.get("path") if isinstance(key, Mapping) else key
    return path if isinstance(path, str) and path else None
