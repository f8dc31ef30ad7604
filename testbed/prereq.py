"""What this machine must have; installed by apt where apt is, named where it isn't."""

from __future__ import annotations

import os
import shutil
import sys

from ._shell import TestbedError, run

# command → Debian package
COMMANDS = {
    "debootstrap": "debootstrap", "ip": "iproute2", "unshare": "util-linux", "nsenter": "util-linux",
    "pivot_root": "util-linux", "mount": "mount", "setpriv": "util-linux", "ssh": "openssh-client",
    "ssh-keygen": "openssh-client", "gpg": "gnupg", "dpkg-deb": "dpkg", "tar": "tar",
}


def ensure() -> None:
    """Return when every command is there; TestbedError that names what is missing otherwise."""
    if sys.platform != "linux" or os.geteuid() != 0:
        raise TestbedError("the testbed · needs root on Linux (network namespaces, mounts) · run it with sudo")
    missing = sorted({package for command, package in COMMANDS.items() if shutil.which(command, path=_path()) is None})
    if not missing:
        return
    if shutil.which("apt-get") is None:
        raise TestbedError(f"missing: {', '.join(missing)} · no apt-get here · install them")
    print(f"testbed: installing {', '.join(missing)}", file=sys.stderr)
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    run(["apt-get", "-qq", "update"], env=quiet)
    run(["apt-get", "-qq", "-y", "--no-install-recommends", "install", *missing], env=quiet, timeout=1200)


def _path() -> str:
    return os.environ.get("PATH", "") + ":/usr/sbin:/sbin:/usr/bin:/bin"
