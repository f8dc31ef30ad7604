"""Terraform and OpenTofu: `terraform output -json`, one output of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from qwen_rig import values
from qwen_rig.cloud.model import Instance, instance
from qwen_rig.errors import RigError

_ADDRESS = ("address", "public_ip", "ip", "ipv4_address", "host")  # what modules call it


def read(data: Any, where: str, options: Mapping[str, Any]) -> Iterator[Instance]:
    """The output that `output:` names: an address, a list or a map of them, or of objects with an address and perhaps
    port, user and name. Raises RigError.
    """
    wanted = options.get("output")
    if not isinstance(data, Mapping) or not all(isinstance(v, Mapping) and "value" in v for v in data.values()):
        raise RigError("isn't `terraform output -json`", where, "run it without an output's name")
    if not isinstance(wanted, str) or wanted not in data:
        raise RigError(f"there is no output {wanted!r}", where, f"output: one of {', '.join(data) or 'none at all'}")
    value = data[wanted]["value"]
    if value is None or isinstance(value, (bool, int, float)):
        raise RigError(f"output {wanted} must be an address, a list or a map, not {values.shown(value)}", where,
                       f"output: one of {', '.join(data)}")
    if isinstance(value, Mapping) and not any(key in value for key in _ADDRESS):
        found = list(value.items())
    else:
        listed = value if isinstance(value, list) else [value]
        found = [(f"{wanted}-{i}" if len(listed) > 1 else str(wanted), v) for i, v in enumerate(listed)]
    for name, item in found:
        fields = item if isinstance(item, Mapping) else {"address": item}
        address = next((fields[key] for key in _ADDRESS if fields.get(key)), None)
        yield instance(where, str(fields.get("name") or name), address=address, port=fields.get("port"),
                       user=fields.get("user"), label=str(name))
