"""The few files in /etc that are ours: their paths and exact contents. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from qwen_rig.facts.machine import Os

HEAD = "# Managed by qwen-rig; changes here are undone by its next run.\n"

REPOSITORY = "/etc/apt/sources.list.d/qwen-rig-nvidia.sources"
PREFERENCES = "/etc/apt/preferences.d/qwen-rig-nvidia"
KEYRING = "/usr/share/keyrings/qwen-rig-nvidia.asc"

# nouveau claims the GPU at boot before NVIDIA's module can (modprobe.d(5)).
# Unattended-Upgrade::Package-Blacklist takes regular expressions (apt.conf of unattended-upgrades); the names are those
# of facts/_dpkg.py.
_DRIVERS = ("^nvidia-", "^libnvidia-", "^libcuda", "^libnvcuvid", "^firmware-nvidia",
            "^linux-(modules|objects|signatures)-nvidia-", "^xserver-xorg-video-nvidia")
# The same names as glob(7) patterns, and the packages that pull a driver in. apt_preferences(5) takes regular
# expressions too, and then each call of apt takes 6 s more: it tries every pattern on every name of its lists (64,000
# of Debian 12), at 10 µs each.
_PINNED = ("nvidia-*", "libnvidia-*", "libcuda*", "libnvcuvid*", "firmware-nvidia*", "linux-modules-nvidia-*",
           "linux-objects-nvidia-*", "linux-signatures-nvidia-*", "xserver-xorg-video-nvidia*", "cuda-drivers*")
GUARD: Mapping[str, str] = {
    "/etc/modprobe.d/qwen-rig-nouveau.conf": HEAD + "blacklist nouveau\noptions nouveau modeset=0\n",
    "/etc/apt/apt.conf.d/51qwen-rig-nvidia": HEAD.replace("#", "//", 1)
    + "Unattended-Upgrade::Package-Blacklist {\n"
    + "".join(f'  "{pattern}";\n' for pattern in (*_DRIVERS, "^cuda-"))
    + "};\n",
}

# nova_core, which kernels from 7.0 on have beside nouveau, takes Turing, Ampere and Ada (beclab/Olares#3963).
NOVA: Mapping[str, str] = {
    "/etc/modprobe.d/qwen-rig-nova.conf": HEAD + "blacklist nova_core\nblacklist nova_drm\n",
}


def guard(nova: bool) -> dict[str, str]:
    """The guard's files, path → text, the sign that all is done last. `nova`: the kernel may have nova_core."""
    return {**(NOVA if nova else {}), **GUARD}


def guard_digests(nova: bool = False) -> dict[str, str]:
    """path → sha256 of what it should hold."""
    return {path: hashlib.sha256(text.encode()).hexdigest() for path, text in guard(nova).items()}


def repository_folder(os: Os) -> str:
    """`debian12`, `ubuntu2404`: NVIDIA's name for a distribution, ID + VERSION_ID without the dot (the variables of
    NVIDIA/ansible-role-nvidia-driver)."""
    return f"{os.id}{os.version_id}".replace(".", "")


def repository_files(os: Os) -> tuple[str, ...]:
    """Where NVIDIA's repository may be configured: by its own keyring package, or by us."""
    folder = repository_folder(os)
    return (REPOSITORY, f"/etc/apt/sources.list.d/cuda-{folder}-x86_64.list")


def repository_url(os: Os, base: str) -> str:
    """Where NVIDIA keeps that distribution's packages below a base URL."""
    return f"{base.rstrip('/')}/{repository_folder(os)}/x86_64/"


def repository_text(url: str) -> str:
    """The deb822 source of a flat repository, trusted by our copy of its key alone."""
    return f"{HEAD}Types: deb\nURIs: {url}\nSuites: /\nSigned-By: {KEYRING}\n"


def preferences_text(url: str, driver: bool) -> str:
    """Which origin the driver's packages come from, as apt_preferences(5) has it: mixing NVIDIA's and a distribution's
    ends in held broken packages (NVIDIA/ansible-role-nvidia-driver#11, NVIDIA/deepops#1123).

    `driver`: NVIDIA's, whatever others offer (600 is above the 500 of an ordinary source). Else never in place of what
    is installed (100), so that a repository that came for the toolkit leaves an adopted driver alone.
    """
    return ("Explanation: Written by qwen-rig with NVIDIA's repository, or with its driver\n"
            f"Package: {' '.join(_PINNED)}\nPin: origin \"{urlsplit(url).hostname}\"\n"
            f"Pin-Priority: {600 if driver else 50}\n")
