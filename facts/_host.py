"""The host: system, hardware, user, tools. Pure: knows no pyinfra."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from typing import Any

from qwen_rig.facts import _cgroup, _disk, _dpkg, _kind, _network, _sh, _users

__all__ = ["EMPTY", "SECTIONS", "read"]

TOOLS = ("curl", "wget", "gpg", "apt-get", "flock", "timeout", "bzip2", "update-initramfs", "dkms", "python3",
         "nvidia-smi")

SECTIONS = {
    **_kind.SECTIONS,
    "host.os": "cat /etc/os-release || cat /usr/lib/os-release",
    "host.system": r"""
printf 'kernel=%s\n' "$kernel"
uname -nm | { read -r n m; printf 'hostname=%s\narch=%s\n' "$n" "$m"; }
printf 'glibc=%s\n' "$(getconf GNU_LIBC_VERSION)"
read -r v </proc/sys/kernel/random/boot_id && printf 'boot_id=%s\n' "$v"
read -r v </etc/machine-id && printf 'machine_id=%s\n' "$v"
read -r v rest </proc/uptime && printf 'uptime=%s\n' "$v"
printf 'time=%s\n' "$(date +%s)"
[ -e "/lib/modules/$kernel/build" ] && echo headers=1
""",
    # The variable is four bytes of attributes and one of value (UEFI 2.10 §3.3, SecureBoot).
    "host.secure_boot": r"""
if [ ! -d /sys/firmware/efi ]; then echo unsupported; else
  od -An -t u1 /sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c
fi
""",
    "host.compilers": r"""
for c in gcc g++; do have $c && printf '%s=%s\n' $c "$(lim $c -dumpfullversion -dumpversion)"; done
""",
    "host.user": r"""
us
printf 'uid=%s\nname=%s\nhome=%s\n' "$me" "$(id -un)" "$HOME"
if [ "$me" = 0 ]; then echo sudo=root
elif have sudo; then if lim sudo -n true; then echo sudo=passwordless; else echo sudo=password; fi
else echo sudo=none; fi
""",
    "host.tools": f"""
for t in {" ".join(TOOLS)}; do have $t && echo $t; done
[ -n "$smi" ] && echo nvidia-smi
""",
    **_disk.SECTIONS,
    **_cgroup.SECTIONS,
    **_users.SECTIONS,
    **_network.SECTIONS,
}

EMPTY: dict[str, Any] = {
    "kind": "unknown", "virt": None, "kind_evidence": [], "init": "other",
    "os": {"id": "unknown", "version_id": "", "codename": None, "pretty": "unknown"},
    "kernel": "", "arch": "", "glibc": None, "boot_id": None, "machine": None, "hostname": "", "uptime_s": 0, "time": 0,
    "headers": False, "secure_boot": "unknown", "disks": [], "memory_mib": 0, "cores": 1.0,
    "compilers": {"gcc": None, "g++": None},
    "user": {"name": "", "uid": -1, "home": ""}, "sudo": "none", "display_manager": None, "gpu_users": [],
    "apt_lock": None, "tools": dict.fromkeys(TOOLS, False), "network": _network.EMPTY,
}


def os_release(text: str) -> dict[str, str | None]:
    """os-release(5) as `{id, version_id, codename, pretty}`. Raises ValueError where it has no ID."""
    found = {key: value.strip("\"'") for key, value in _sh.pairs(text).items()}
    if "ID" not in found:
        raise ValueError("os-release has no ID")
    return {"id": found["ID"], "version_id": found.get("VERSION_ID", ""),
            "codename": found.get("VERSION_CODENAME") or None, "pretty": found.get("PRETTY_NAME", found["ID"])}


def secure_boot(text: str) -> str:
    """`enabled`, `disabled`, `unsupported` (no UEFI) or `unknown` (UEFI whose variable can't be read)."""
    if text.strip() == "unsupported":
        return "unsupported"
    words = text.split()
    return {"1": "enabled", "0": "disabled"}.get(words[4], "unknown") if len(words) == 5 else "unknown"


def _system(text: str) -> dict[str, Any]:
    found = _sh.pairs(text)
    glibc = re.match(r"glibc (\d+\.\d+)", found.get("glibc", ""))
    if not re.fullmatch(r"[\w.+~:-]{1,128}", found["kernel"], re.ASCII):
        raise ValueError("the kernel's release is no name")
    return {
        "kernel": found["kernel"], "arch": found["arch"], "hostname": found["hostname"],
        "glibc": glibc[1] if glibc else None, "boot_id": found.get("boot_id"),
        "machine": _machine(found.get("machine_id", "")),
        "uptime_s": int(float(found.get("uptime", "0"))), "time": int(found["time"]), "headers": "headers" in found,
    }


def _machine(machine_id: str) -> str | None:
    """Which machine this is, across reinstalled names and changed addresses; None where it has no id.

    machine-id(5) asks for its value to be kept, and a hash with the program's own word to be shown instead.
    """
    if not re.fullmatch(r"[0-9a-f]{32}", machine_id):
        return None
    return hashlib.sha256(f"qwen-rig {machine_id}".encode()).hexdigest()[:16]


def _compilers(text: str) -> dict[str, str | None]:
    found = _sh.pairs(text)
    return {name: found[name] if re.match(r"\d", found.get(name, "")) else None for name in ("gcc", "g++")}


def _user(text: str) -> dict[str, Any]:
    found = _sh.pairs(text)
    uid = int(found["uid"])
    if not (found["home"].startswith("/") and found["home"].isprintable()):
        raise ValueError("the home folder has no path")
    return {"user": {"name": found["name"] or str(uid), "uid": uid, "home": found["home"]}, "sudo": found["sudo"]}


def _limits(text: str) -> dict[str, Any]:
    memory, cores = _cgroup.read(text)
    return {"memory_mib": memory, "cores": cores}


def read(text: Mapping[str, str]) -> tuple[dict[str, Any], dict[str, str]]:
    """The host in the shape of EMPTY, and what couldn't be read: part → one line; that part keeps its empty value."""
    packages = _dpkg.read(text.get("dpkg", ""))
    parts: dict[str, Callable[[], dict[str, Any]]] = {
        "kind": lambda: _kind.read(text["host.kind"], bool(_dpkg.driver_packages(packages))),
        "os": lambda: {"os": os_release(text["host.os"])},
        "system": lambda: _system(text["host.system"]),
        "secure_boot": lambda: {"secure_boot": secure_boot(text["host.secure_boot"])},
        "disks": lambda: {"disks": _disk.read(text["host.df"], text["host.mounts"], text.get("host.writable", ""))},
        "limits": lambda: _limits(text["host.limits"]),
        "compilers": lambda: {"compilers": _compilers(text["host.compilers"])},
        "user": lambda: _user(text["host.user"]),
        "display_manager": lambda: {"display_manager": _users.display_manager(text["host.display"])},
        "gpu_users": lambda: {"gpu_users": _users.gpu_users(text["host.gpu_users"], text.get("smi.table", ""))},
        "apt_lock": lambda: {"apt_lock": _users.apt_lock(text["host.locks"])},
        "tools": lambda: {"tools": {name: name in text["host.tools"].split() for name in TOOLS}},
        "network": lambda: {"network": _network.read(text.get("host.network", ""))},
    }
    found: dict[str, Any] = dict(EMPTY)
    problems: dict[str, str] = {}
    for part, parse in parts.items():
        value, problem = _sh.attempt(parse)
        found.update(value or {})
        if problem:
            problems[f"host.{part}"] = problem
    return found, problems
