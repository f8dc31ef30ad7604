"""GPUs as the PCI bus shows them, before any driver. Pure: knows no pyinfra."""

from __future__ import annotations

import re

from qwen_rig.facts import _sh

# Vendor 10de is NVIDIA; class 0300 a VGA and 0302 a 3D controller (pci.ids). Its audio and USB functions are no GPUs.
SECTIONS = {
    "pci": r"""
for d in /sys/bus/pci/devices/*; do
  read -r vendor <"$d/vendor" && [ "$vendor" = 0x10de ] || continue
  printf '\nslot=%s\n' "${d##*/}"
  for f in class device subsystem_vendor subsystem_device current_link_width max_link_width; do
    read -r v <"$d/$f" && printf '%s=%s\n' "$f" "$v"
  done
  printf 'driver=%s\n' "$(readlink "$d/driver")"
done
""",
}
_GPU = ("0300", "0302")
_SLOT, _ID = re.compile(r"[0-9A-Fa-f]{4,8}:[0-9A-Fa-f]{2}:[0-9A-Fa-f]{2}\.[0-7]"), re.compile("(0x)?[0-9a-fA-F]{4}")


def read(text: str) -> list[dict[str, str | int | None]]:
    """One dict a GPU. Raises ValueError where a device lacks its class or id."""
    found: list[dict[str, str | int | None]] = []
    for block in filter(str.strip, text.split("\n\n")):
        device = _sh.pairs(block)
        if not {"slot", "class", "device"} <= device.keys():
            raise ValueError(f"PCI device {device.get('slot', '?')} has no class or id in /sys")
        if not _SLOT.fullmatch(device["slot"]) or not _ID.fullmatch(device["device"]):
            raise ValueError("a PCI device's slot or id is none")
        kind = device["class"].removeprefix("0x")[:4]
        if kind not in _GPU:
            continue
        vendor, model = (device.get(key, "").removeprefix("0x") for key in ("subsystem_vendor", "subsystem_device"))
        width, widest = (int(v) if (v := device.get(f"{key}_link_width", "")).isdigit() and v != "0" else None
                         for key in ("current", "max"))
        found.append({
            "slot": device["slot"],
            "device_id": "10de:" + device["device"].removeprefix("0x"),
            "subsystem_id": f"{vendor}:{model}" if vendor and model else None,
            "class": kind,
            "driver": device["driver"].rpartition("/")[2] or None if "driver" in device else None,
            "pcie_width": width, "pcie_width_max": widest,
        })
    return found
