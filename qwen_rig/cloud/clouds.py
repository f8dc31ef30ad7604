"""AWS, GCP and Azure by their own command lines' JSON; Lambda by its API's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from qwen_rig.cloud.model import Instance, instance, part, parts, rows, text


def aws(data: Any, where: str, options: Mapping[str, Any]) -> Iterator[Instance]:
    """`aws ec2 describe-instances --output json`; `private: true` dials the private address. Raises RigError."""
    for reservation in rows(data, where, "Reservations"):
        for row in parts(reservation, "Instances", where):
            tags = {str(tag.get("Key")): tag.get("Value") for tag in parts(row, "Tags", where)}
            state = row.get("State")
            word = str(state.get("Name")) if isinstance(state, Mapping) else "unknown"
            address = row.get("PrivateIpAddress" if options.get("private") else "PublicIpAddress")
            yield instance(where, text(row, "InstanceId", where), address=address, running=word == "running",
                           state=word, label=tags.get("Name"), tags=tags)


def gcp(data: Any, where: str, options: Mapping[str, Any]) -> Iterator[Instance]:
    """`gcloud compute instances list --format=json`. Raises RigError."""
    for row in rows(data, where):
        interfaces = parts(row, "networkInterfaces", where)
        outside = [config.get("natIP") for each in interfaces for config in parts(each, "accessConfigs", where)]
        inside = [each.get("networkIP") for each in interfaces]
        address = next(filter(None, inside if options.get("private") else outside), None)
        state, name = str(row.get("status") or "unknown"), text(row, "name", where)
        yield instance(where, f"gcp-{text(row, 'id', where)}", address=address, running=state == "RUNNING",
                       state=state, label=name, tags=row.get("labels"))


def azure(data: Any, where: str, options: Mapping[str, Any]) -> Iterator[Instance]:
    """`az vm list --show-details --output json`. Raises RigError."""
    for row in rows(data, where):
        addresses = part(row, "privateIps" if options.get("private") else "publicIps", where, str).split(",")
        state = str(row.get("powerState") or "unknown")
        yield instance(where, f"azure-{text(row, 'vmId', where)}", address=addresses[0].strip() or None,
                       running=state == "VM running", state=state, label=row.get("name"), tags=row.get("tags"))


def lambda_cloud(data: Any, where: str, options: Mapping[str, Any]) -> Iterator[Instance]:
    """What Lambda's API answers to `GET /api/v1/instances`; its images log in as ubuntu. Raises RigError."""
    for row in rows(data, where, "data"):
        state = str(row.get("status") or "unknown")
        address = row.get("private_ip" if options.get("private") else "ip")
        yield instance(where, f"lambda-{text(row, 'id', where)}", address=address, user="ubuntu",
                       running=state == "active", state=state, label=row.get("name"))
