"""Who holds what: apt's locks, the GPU, the screen. Pure: knows no pyinfra."""

from __future__ import annotations

import re
from typing import Any

from qwen_rig.facts import _smi

SECTIONS = {
    # dpkg and apt lock with fcntl, and /proc/locks names the inode and the holder (proc(5)).
    "host.locks": r"""
set --
for f in /var/lib/dpkg/lock-frontend /var/lib/dpkg/lock /var/lib/apt/lists/lock; do
  [ -e "$f" ] && set -- "$@" "$f"
done
[ $# -gt 0 ] || exit
stat -c 'file %i %d %n' "$@"
grep -E ' WRITE ' /proc/locks | while read -r n kind how what pid dev rest; do
  [ "$kind" = '->' ] && continue
  read -r c <"/proc/$pid/comm" || c='?'
  printf 'lock %s %s %s\n' "$dev" "$pid" "$c"
done
""",
    # Open files tell it without nvidia-smi, and only of the processes whose files we may see; $smi_table of the rest.
    "host.gpu_users": r"""
set -- /dev/nvidia*
[ -e "$1" ] || [ -n "$smi_table" ] || exit
{
  [ -e "$1" ] && ls -l /proc/[0-9]*/fd |
    sed -n '/^\/proc/{s,^/proc/,,;s,/.*,,;h;d;};/-> \/dev\/nvidia/{x;p;x;}'
  printf '%s\n' "$smi_table" | sed -nE 's/^\| +[0-9]+ .* ([0-9]+) +[CGM+]+ +[^ ].* (N\/A|[0-9]+MiB) +\|$/\1/p'
} | sort -u | while read -r pid; do
  read -r c <"/proc/$pid/comm" || continue
  set -- $(ls -ld "/proc/$pid")
  printf '%s %s %s\n' "$pid" "${3:-?}" "$c"
done
""",
    "host.display": r"""
grep -xE 'gdm3?|lightdm|sddm|lxdm|xdm|slim|greetd|ly-dm|cosmic-greeter' /proc/[0-9]*/comm /dev/null | head -n 1
""",
}

# The driver's own helpers, which start and stop with it: they use no GPU. The kernel cuts names at 15 characters.
_HELPERS = {name[:15] for name in ("nvidia-persistenced", "nvidia-powerd", "nv-fabricmanager", "nvidia-smi")}


def apt_lock(text: str) -> dict[str, Any] | None:
    """The holder of one of apt's locks as `{path, pid, name}`; None where nobody holds one."""
    files = re.findall(r"^file (\d+) (\d+) (\S+)$", text, re.MULTILINE)
    locks = re.findall(r"^lock (\w+):(\w+):(\d+) (\d+) (.*)$", text, re.MULTILINE)
    for inode, device, path in files:
        number = int(device)  # as glibc's gnu_dev_major and gnu_dev_minor take it apart
        major, minor = number >> 8 & 0xFFF, number & 0xFF | number >> 12 & 0xFFF00
        for lock_major, lock_minor, lock_inode, pid, name in locks:
            # Without a device of its own (overlay, btrfs) a file shows another number in stat than in /proc/locks.
            same = (int(lock_major, 16), int(lock_minor, 16)) == (major, minor) or int(lock_major, 16) == major == 0
            if lock_inode == inode and same:
                return {"path": path, "pid": int(pid), "name": name}
    return None


def gpu_users(text: str, table: str = "") -> list[dict[str, Any]]:
    """Who has a GPU open, `{pid, user, name}`; those that only nvidia-smi sees belong to the user "unknown"."""
    found = {}
    for line in text.splitlines():
        pid, user, name = [*line.split(" ", 2), "", ""][:3]
        if pid.isdigit() and name not in _HELPERS:
            found[int(pid)] = {"pid": int(pid), "user": user, "name": name}
    for row in _smi.processes(table):
        found.setdefault(row["pid"], {"pid": row["pid"], "user": "unknown", "name": row["name"]})
    return [found[pid] for pid in sorted(found)]


def display_manager(text: str) -> str | None:
    """The running display manager's name, or None."""
    return text.strip().rpartition(":")[2] or None
