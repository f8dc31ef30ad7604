"""Any of the providers that Apache Libcloud knows, through its own API; it is the extra `cloud`."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

from qwen_rig.cloud.model import Instance, instance
from qwen_rig.errors import RigError


def read(data: Any, where: str, options: Mapping[str, Any]) -> Iterator[Instance]:
    """The nodes of `provider:` (libcloud's own name), logged in to with what the environment variables of `arguments:`
    hold, in that order; `keywords:` are handed on as they are (region: …). Raises RigError.
    """
    try:
        from libcloud.compute.providers import get_driver
        from libcloud.compute.types import NodeState
    except ImportError:
        raise RigError("Apache Libcloud isn't installed", where, "pip install 'apache-libcloud>=3.8'") from None
    secrets = []
    for name in options.get("arguments") or []:
        if not os.environ.get(str(name)):
            raise RigError(f"environment variable {name} is not set", where, "export it")
        secrets.append(os.environ[str(name)])
    try:
        nodes = get_driver(str(options.get("provider")))(*secrets, **(options.get("keywords") or {})).list_nodes()
    except Exception as error:  # every driver has exceptions of its own
        raise RigError(f"libcloud: {type(error).__name__}: {' '.join(str(error).split())[:200]}", where,
                       "check provider, arguments and keywords") from None
    for node in nodes:
        addresses = node.private_ips if options.get("private") else node.public_ips
        tags = node.extra.get("tags") or node.extra.get("metadata")
        running = node.state == NodeState.RUNNING
        yield instance(where, f"{options['provider']}-{node.id}", address=next(iter(addresses), None),
                       running=running, state=str(node.state), label=node.name, tags=tags)
