"""What the kernel and apt's history tell of the driver. Pure: knows no pyinfra."""

from __future__ import annotations

import re
from typing import Any

from qwen_rig.facts import _sh

LINES = 60  # of the newest that are kept; a card that falls off the bus can write thousands

# Lines that speak of NVIDIA's driver or of the bus its cards sit on: NVRM and Xid (NVIDIA's "XID Errors" guide), a
# module that is refused (kernel: kernel/module/signing.c, security/lockdown), PCI resources and AER
# (drivers/pci/setup-res.c, drivers/pci/pcie/aer.c), the OOM killer.
_WANTED = ("NVRM|Xid|nvidia|nouveau|nova_core|NovaCore|AER: |PCIe Bus Error|"
           "BAR [0-9]+.*(no space for|failed to assign)|Lockdown: |"
           "Loading of .*module|Key was rejected|Out of memory: Killed")

SECTIONS = {
    "log.kernel": rf"""
from=dmesg; log=$(lim dmesg)
if [ -z "$log" ] && have journalctl; then from=journal; log=$(lim journalctl -k -b -q --no-pager); fi
if [ -z "$log" ]; then from=none; read -r v </proc/sys/kernel/dmesg_restrict && printf 'restricted=%s\n' "$v"; fi
printf 'source=%s\n' "$from"
printf '%s\n' "$log" | grep -E '{_WANTED}' | tail -n {LINES} | sed 's/^/line=/; s/^\(.\{{245\}}\).*/\1/'
""",
    # Stanzas stand between empty lines (apt's history.log); the newest in which unattended-upgrades touched the driver.
    "log.apt": r"""
[ -r /var/log/apt/history.log ] && tail -c 300000 /var/log/apt/history.log |
  awk 'BEGIN { RS = "" } /unattended-upgrade/ && /nvidia/ { last = $0 } END { print last }' | cut -c1-6000
""",
}

EMPTY: dict[str, Any] = {"source": None, "why_not": None, "lines": []}


def kernel(text: str) -> dict[str, Any]:
    """The kernel log as `{source, why_not, lines}`; `source` None where it couldn't be read, and `why_not` says why."""
    found = _sh.pairs(text)
    source = found.get("source")
    lines = [line[5:] for line in text.splitlines() if line.startswith("line=")]
    if source in ("dmesg", "journal"):
        return {"source": source, "why_not": None, "lines": lines}
    why = "it takes root here (kernel.dmesg_restrict=1)" if found.get("restricted") == "1" else "it is empty or missing"
    return {"source": None, "why_not": why if source else None, "lines": []}


def upgrade(text: str) -> dict[str, Any] | None:
    """The newest unattended upgrade of the driver as `{when, packages: {name: [from, to]}}`; None: none is told of."""
    when = re.search(r"^Start-Date:\s*(\S+)\s+(\S+)", text, re.MULTILINE)
    moved = re.findall(r"([\w.+-]*nvidia[\w.+-]*)(?::\w+)? \(([^,()]+), ([^,()]+)(?:, automatic)?\)", text)
    return {"when": f"{when[1]} {when[2]}", "packages": {name: [old, new] for name, old, new in moved}} \
        if when and moved else None
