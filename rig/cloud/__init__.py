"""Rented machines: the hosts of cloud.yml, from whatever lists them. inventories/cloud.example.yml is its manual."""

from .inventory import Found, load_cloud

__all__ = ["Found", "load_cloud"]
