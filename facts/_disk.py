"""Disks: what can be written to, and how much is free. Pure: knows no pyinfra."""

from __future__ import annotations

from typing import Any

# File systems that another machine serves: one that is gone hangs whoever touches it, and locks on them are no sure
# thing. The last four are how clouds and hypervisors hand such volumes in.
NETWORK = "nfs*|cifs|smb*|ceph|glusterfs|lustre|beegfs|fuse.*|9p|virtiofs|afs"
# What the kernel shows of itself: nothing is kept there.
KERNELS = ("proc", "sysfs", "cgroup", "cgroup2", "devpts", "mqueue", "efivarfs", "securityfs", "squashfs", "nsfs",
           "bpf", "tracefs", "debugfs", "autofs", "configfs", "pstore", "binfmt_misc", "rpc_pipefs")
# A dead network mount makes df wait for ever: then only the local ones. The second df names places whose mount a
# df without arguments may leave out as a duplicate.
SECTIONS = {
    "host.df": r"""
lim df -P -k; [ $? -ge 124 ] && lim df -P -k -l
lim df -P -k "$HOME" /tmp "${TMPDIR:-/tmp}" /var/cache/apt
""",
    "host.mounts": "cat /proc/self/mounts || cat /proc/mounts",
    "host.writable": f"""
while read -r device m type rest; do
  case $type in {NETWORK}) continue ;; esac
  [ -d "$m" ] && [ -w "$m" ] && printf '%s\\n' "$m"
done </proc/self/mounts
""",
}

# Not disks, though df shows them; and tmpfs that is the kernel's or a service's own.
_PSEUDO = {"devtmpfs", "proc", "sysfs", "cgroup", "cgroup2", "devpts", "mqueue", "efivarfs", "securityfs", "squashfs",
           "iso9660", "ramfs", "fuse.lxcfs", "fuse.snapfuse", "nsfs", "bpf", "tracefs", "debugfs", "autofs"}
_SYSTEM = ("/dev", "/run", "/sys", "/proc", "/snap", "/boot/efi", "/var/lib/docker", "/var/lib/containers")


def _unescape(path: str) -> str:
    """/proc/mounts writes space, tab, newline and backslash in octal (fstab(5))."""
    for code, char in ((r"\040", " "), (r"\011", "\t"), (r"\012", "\n"), (r"\134", "\\")):
        path = path.replace(code, char)
    return path


def file_systems(mounts: str) -> dict[str, str]:
    """Mount point → type of file system."""
    types: dict[str, str] = {}
    for line in mounts.split("\n"):
        words = line.split(" ")
        if len(words) >= 3:
            types[_unescape(words[1])] = words[2]  # the last mount on a place is the one that shows
    return types


def read(df: str, mounts: str, writable: str = "") -> list[dict[str, Any]]:
    """`{mount, fstype, size_mib, free_mib, writable}` of each real file system, by mount. ValueError without `/`.

    `writable`: whether we may make a folder there; False also on another machine's file systems: those aren't asked.
    """
    ours = set(writable.splitlines())
    types = file_systems(mounts)
    found: dict[str, dict[str, Any]] = {}
    for line in df.splitlines():
        words = line.split()
        at = next((i for i, word in enumerate(words) if word.endswith("%") and i >= 4), None)
        if at is None or not (words[at - 3].isdigit() and words[at - 1].lstrip("-").isdigit()):
            continue
        mount = " ".join(words[at + 1:])
        fstype = types.get(mount, "unknown")
        system = any(mount == place or mount.startswith(place + "/") for place in _SYSTEM)
        if fstype in _PSEUDO or system or int(words[at - 3]) < 1024:
            continue
        found[mount] = {"mount": mount, "fstype": fstype, "size_mib": int(words[at - 3]) // 1024,
                        "free_mib": max(0, int(words[at - 1])) // 1024, "writable": mount in ours}
    if "/" not in found:
        raise ValueError("df shows no file system at /")
    return [found[mount] for mount in sorted(found)]
