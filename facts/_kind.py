"""Bare metal, VM, container or WSL: who owns the kernel, and so its driver. Pure: knows no pyinfra."""

from __future__ import annotations

import re
from typing import Any

from qwen_rig.facts import _sh

# Of pid 1's environment only the two names that tell a container leave the host: the rest may be secret.
SECTIONS = {
    "host.kind": r"""
read -r v </proc/version && printf 'version=%s\n' "$v"
[ -e /.dockerenv ] && echo dockerenv=1
[ -e /run/.containerenv ] && echo containerenv=1
for f in /run/systemd/container /run/host/container-manager; do
  read -r v <"$f" && printf 'manager=%s\n' "$v" && break
done
sed 's/^/cgroup=/' /proc/1/cgroup
tr '\0' '\n' </proc/1/environ | sed -n 's/^container=/environ=/p; s/^KUBERNETES_SERVICE_HOST=.*/kubernetes=1/p'
[ -n "$container" ] && printf 'environ=%s\n' "$container"
[ -n "$KUBERNETES_SERVICE_HOST" ] && echo kubernetes=1
if have systemd-detect-virt; then
  printf 'detect_container=%s\n' "$(lim systemd-detect-virt -c)"
  printf 'detect_vm=%s\n' "$(lim systemd-detect-virt -v)"
fi
read -r v </proc/1/comm && printf 'pid1=%s\n' "$v"
[ -d /run/systemd/system ] && echo systemd=1
[ -d "/lib/modules/$kernel" ] && echo modules=1
[ -e /proc/driver/nvidia/version ] && echo driver=1
[ -n "$smi" ] && echo userland=1
sed -n 's,^[^ ]* \(/[^ ]*\(nvidia\|libcuda\)[^ ]*\) .*,mount=\1,p' /proc/self/mounts
for f in sys_vendor product_name; do read -r v <"/sys/class/dmi/id/$f" && printf '%s=%s\n' "$f" "$v"; done
read -r v </sys/hypervisor/type && printf 'hypervisor=%s\n' "$v"
grep -qw hypervisor /proc/cpuinfo && echo hypervisor_flag=1
""",
}

# pid 1 of a machine that boots; anything else started by another machine's kernel is a container's.
_INITS = {"systemd", "init", "openrc-init", "runit", "runsvdir", "s6-svscan", "dinit", "busybox", "linuxrc"}
_CGROUPS = {"kubepods": "kubernetes", "docker": "docker", "libpod": "podman", "lxc": "lxc", "containerd": "containerd",
            "crio": "cri-o", "garden": "garden"}
# DMI vendor or product → the names systemd-detect-virt uses.
_DMI = {"QEMU": "qemu", "KVM": "kvm", "VMware": "vmware", "VirtualBox": "oracle", "innotek": "oracle", "Xen": "xen",
        "Parallels": "parallels", "Virtual Machine": "microsoft", "Amazon EC2": "amazon",
        "Google Compute Engine": "google", "OpenStack": "kvm", "Firecracker": "firecracker"}


def _container(facts: dict[str, str], cgroups: list[str]) -> list[tuple[str, str]]:
    """(engine, evidence) for each thing that names a container outright."""
    found = []
    if "dockerenv" in facts:
        found.append(("docker", "/.dockerenv"))
    if "containerenv" in facts:
        found.append(("podman", "/run/.containerenv"))
    for key, words in (("environ", "container={} in the environment"), ("manager", "container manager {}")):
        if facts.get(key):
            found.append((facts[key], words.format(facts[key])))
    if "kubernetes" in facts:
        found.append(("kubernetes", "KUBERNETES_SERVICE_HOST is set"))
    for mark, engine in _CGROUPS.items():
        if any(re.search(rf"[/:.-]{mark}(?:[/.:-]|\d*$)", line) for line in cgroups):
            found.append((engine, f"pid 1 is in a {mark} cgroup"))
    detected = facts.get("detect_container", "none")
    # container-other is systemd's guess from a pid namespace alone; that is no engine's name.
    if detected not in ("", "none", "container-other", "wsl"):
        found.append((detected, f"systemd-detect-virt says {detected}"))
    return found


def _foreign_driver(facts: dict[str, str], mounts: list[str], own_driver: bool) -> list[str]:
    """Evidence that the driver comes from outside: mounted in, or loaded where nothing here could have done it."""
    if own_driver:
        return []
    places = [m for m in mounts if not m.startswith(("/proc/", "/sys/", "/dev/", "/run/"))]
    found = [f"{places[0]} is mounted from outside"] if places else []
    init = facts.get("pid1", "")
    booted = facts.keys() & {"modules", "systemd"} or init in _INITS
    if {"driver", "userland"} <= facts.keys() and not booted:
        found.append("a driver is loaded and nvidia-smi is here, but no package of either, nor this kernel's modules, "
                     f"nor an init system (pid 1 is {init or 'hidden'})")
    return found


def _vm(facts: dict[str, str]) -> tuple[str, str] | None:
    """(hypervisor, evidence), or None on bare metal."""
    detected = facts.get("detect_vm", "none")
    if detected not in ("", "none"):
        return detected, f"systemd-detect-virt says {detected}"
    if facts.get("hypervisor"):
        return facts["hypervisor"], "/sys/hypervisor/type"
    text = f"{facts.get('sys_vendor', '')} {facts.get('product_name', '')}"
    named = next((name for mark, name in _DMI.items() if mark in text), None)
    if "hypervisor_flag" in facts:
        return named or "vm-other", "the CPU says that it runs under a hypervisor"
    # Clouds that also rent bare metal put their name in DMI either way; there only the CPU's flag counts.
    if named and named not in ("amazon", "google"):
        return named, f"DMI says {text.strip()}"
    return None


def read(text: str, own_driver: bool) -> dict[str, Any]:
    """`{kind, virt, kind_evidence, init}`. `own_driver`: whether driver packages are installed on this very host."""
    facts = _sh.pairs(text)
    lines = text.splitlines()
    cgroups = [line[7:] for line in lines if line.startswith("cgroup=")]
    mounts = [line[6:] for line in lines if line.startswith("mount=")]
    init = "systemd" if "systemd" in facts else "other"
    if re.search("microsoft", facts.get("version", ""), re.IGNORECASE):
        return {"kind": "wsl", "virt": "wsl", "init": init, "kind_evidence": ["microsoft in /proc/version"]}
    vm = _vm(facts)
    named, foreign = _container(facts, cgroups), _foreign_driver(facts, mounts, own_driver)
    if named or foreign:
        virt = named[0][0] if named else vm[0] if vm else None
        return {"kind": "container", "virt": virt, "init": init,
                "kind_evidence": [evidence for _, evidence in named] + foreign}
    return {"kind": "vm" if vm else "bare_metal", "virt": vm[0] if vm else None, "init": init,
            "kind_evidence": [vm[1]] if vm else ["no sign of a hypervisor or a container"]}
