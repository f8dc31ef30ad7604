"""Rented machines: the hosts of cloud.yml, from whatever lists them. inventories/cloud.example.yml is its manual."""

from qwen_rig.cloud.inventory import Found, load_cloud

__all__ = ["Found", "load_cloud"]
