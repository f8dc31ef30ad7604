"""dpkg's list of packages, and what it tells of the NVIDIA driver on disk. Pure: knows no pyinfra."""

from __future__ import annotations

import re

# The first three columns of `dpkg -l`, for the packages that matter here.
SECTIONS = {
    "dpkg": r"""
have dpkg-query && dpkg-query -W -f '${db:Status-Abbrev} ${Package} ${Version}\n' \
  '*nvidia*' '*cuda*' 'linux-headers*'
""",
}
_NAME = re.compile(r"[a-z0-9][a-z0-9+.-]*")  # deb-control(5)
_VERSION = re.compile(r"[A-Za-z0-9.+~:-]+")  # deb-version(7)
_WATCHED = re.compile(r"nvidia|cuda|linux-headers")

# Packages whose version is the driver's, the kernel module's own first; names on Ubuntu, Debian and in NVIDIA's
# repository (docs/sources.md, driver packages). Not cuda-compat-*: that is a forward-compatibility library, no driver.
_BRANCH = r"(?:-\d+)?(?:-server)?"
_DRIVER = (
    rf"nvidia-(?:kernel-open-dkms|open-kernel-dkms|kernel-dkms|dkms{_BRANCH}(?:-open)?|dkms-open"
    rf"|kernel-source{_BRANCH}(?:-open)?)",
    rf"nvidia-(?:driver|headless|headless-no-dkms){_BRANCH}(?:-open)?|nvidia-open(?:-\d+)?|cuda-drivers(?:-\d+)?",
    rf"libnvidia-compute{_BRANCH}|nvidia-(?:compute-)?utils{_BRANCH}|nvidia-driver-(?:libs|cuda)|nvidia-smi"
    r"|libcuda1|libnvidia-ml1",
)
_PREBUILT = re.compile(r"linux-modules-nvidia-\d+")  # versioned as the kernel is
_OPEN = re.compile(r"(?:^|-)open(?:-|$)")


def read(text: str) -> dict[str, str]:
    """Installed packages (`ii`, `hi`), name without architecture → version; of `dpkg -l` or of our query."""
    found = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 3 and words[0] in ("ii", "hi"):
            name = words[1].partition(":")[0]
            if _WATCHED.search(name) and _NAME.fullmatch(name) and _VERSION.fullmatch(words[2]):
                found[name] = words[2]
    return found


def upstream(version: str) -> str:
    """`1:580.95.05-0ubuntu0.24.04.1` → `580.95.05`: without epoch and revision (deb-version(7))."""
    return version.rpartition(":")[2].partition("-")[0].partition("+")[0]


def driver_packages(packages: dict[str, str]) -> dict[str, str]:
    """Those that hold a driver or its libraries, the kernel module's first."""
    found = {}
    for pattern in _DRIVER:
        found.update({name: v for name, v in sorted(packages.items()) if re.fullmatch(pattern, name)})
    return found


def driver(packages: dict[str, str]) -> tuple[str | None, str | None]:
    """The packaged driver's upstream version and flavour ("open" or "proprietary"); None where packages don't tell."""
    version = None
    for pattern in _DRIVER:
        versions = [upstream(v) for name, v in packages.items() if re.fullmatch(pattern, name)]
        if versions:
            version = max(versions, key=lambda v: [int(n) for n in re.findall(r"\d+", v)])
            break
    modules = [name for name in packages
               if _PREBUILT.match(name) or any(re.fullmatch(pattern, name) for pattern in _DRIVER[:2])]
    if not modules:
        return version, None
    return version, "open" if any(_OPEN.search(name) for name in modules) else "proprietary"
