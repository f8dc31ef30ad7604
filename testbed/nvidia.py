"""NVIDIA's packages, EMULATED: names, versions and dependencies as in NVIDIA's repository for Debian, contents ours.

Names and the pinning package: NVIDIA's driver installation guide, "Version locking" and "Debian".
"""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

from . import deb
from ._shell import EMULATED, FILES, TestbedError
from .deb import Package
from .kmod import module
from .paths import cache, locked, settle

# driver → the CUDA release that its nvidia-smi shows (CUDA release notes, driver table)
DRIVERS = {"550.90.07": "12.4", "570.172.08": "12.8", "580.95.05": "13.0", "590.48.01": "13.1"}
PINNED = ("580", "590")
LIBRARIES = "usr/lib/x86_64-linux-gnu"
NVCC = {"12.4": "12.4.131", "12.6": "12.6.85", "12.8": "12.8.93"}  # release → version (CUDA release notes)
TOOLKIT = "12.8"
# The file names of NVIDIA's own keys, by distribution; what is in them is the testbed's.
KEY_FILES = ("3bf863cc.pub", "8793F200.pub")


def smi(version: str) -> str:
    """The emulated nvidia-smi of a driver."""
    if version not in DRIVERS:
        raise TestbedError(f"driver {version} · not among the emulated ones: {', '.join(DRIVERS)}")
    text = (FILES / "nvidia-smi.sh").read_text(encoding="utf-8")
    return text.replace("@VERSION@", version).replace("@CUDA@", DRIVERS[version])


def nvcc(release: str) -> str:
    """The emulated nvcc of a CUDA release."""
    return (f"#!/bin/sh\n# {EMULATED}\n"
            f'case $1 in --version|-V) ;; *) echo "nvcc fatal : {EMULATED}: compiles nothing" >&2; exit 1 ;; esac\n'
            f'echo "nvcc: NVIDIA (R) Cuda compiler driver ({EMULATED})"\n'
            f'echo "Cuda compilation tools, release {release}, V{NVCC[release]}"\n')


def toolkit_files(release: str) -> dict[str, str | bytes]:
    """What lies below /usr/local/cuda-RELEASE."""
    root = f"usr/local/cuda-{release}"
    return {f"{root}/bin/nvcc": nvcc(release), f"{root}/include/cuda.h": f"/* {EMULATED} */\n",
            f"{root}/version.json": f'{{"cuda": {{"name": "{EMULATED}", "version": "{NVCC[release]}"}}}}\n'}


def driver_files(version: str, flavour: str, kernel: str) -> list[str]:
    """The .deb files that make up one driver with the kernel's headers, for dpkg."""
    smi(version)
    modules = {"open": ("nvidia-kernel-open-dkms", "nvidia-open"),
               "proprietary": ("nvidia-kernel-dkms", "cuda-drivers")}
    names = ("libcuda1", "libnvidia-ml1", "nvidia-driver-cuda", *modules[flavour])
    return [f"linux-headers-{kernel}_{_debian(kernel)}_amd64.deb", *(f"{name}_{version}-1_amd64.deb" for name in names)]


def repository(folder: str) -> Path:
    """The repositories' root; NVIDIA's layout below it is FOLDER/x86_64/. Built once per kernel."""
    packages = _packages(os.uname().release)
    with locked("nvidia"):
        secret, public, fingerprint = deb.signing_key(cache() / "keys")
        digest = hashlib.sha256(repr((packages, fingerprint, folder)).encode()).hexdigest()[:12]
        root = cache() / f"nvidia-{digest}"
        if not root.exists():
            partial = cache() / f".nvidia-{digest}.partial"
            shutil.rmtree(partial, ignore_errors=True)
            deb.build(packages, partial / folder / "x86_64")
            deb.sign(partial / folder / "x86_64", secret, "NVIDIA")
            for name in KEY_FILES:
                (partial / folder / "x86_64" / name).write_text(public, encoding="utf-8")
            partial.rename(root)
        settle(root)
    return root


def fingerprint() -> str:
    """The key that signs the repository."""
    return deb.signing_key(cache() / "keys")[2]


def _debian(kernel: str) -> str:
    return kernel.replace("-", "~") + "-1"


def _packages(kernel: str) -> list[Package]:
    return [package for version in DRIVERS for package in _driver(version)] + [
        *(_pinning(branch) for branch in PINNED), *_toolkit(TOOLKIT), _headers(kernel)]


def _driver(version: str) -> list[Package]:
    exact, branch = f"{version}-1", version.split(".")[0]
    same = f"(= {exact})"
    libraries = [
        Package(name, exact, "NVIDIA library", files={f"{LIBRARIES}/{library}.{version}": f"{EMULATED}\n"},
                links={f"{LIBRARIES}/{library}.1": f"{library}.{version}"})
        for name, library in (("libcuda1", "libcuda.so"), ("libnvidia-ml1", "libnvidia-ml.so"))]
    metas = {"nvidia-open": ("nvidia-kernel-open-dkms", "cuda-drivers"),
             "cuda-drivers": ("nvidia-kernel-dkms", "nvidia-open")}
    found = [*libraries,
             Package("nvidia-driver-cuda", exact, "NVIDIA driver for computing",
                     (f"libcuda1 {same}", f"libnvidia-ml1 {same}"), files={"usr/bin/nvidia-smi": smi(version)}),
             _dkms("nvidia-kernel-open-dkms", "nvidia-kernel-dkms", version, "open"),
             _dkms("nvidia-kernel-dkms", "nvidia-kernel-open-dkms", version, "proprietary")]
    for name, (modules, other) in metas.items():
        needs = (f"{modules} {same}", f"nvidia-driver-cuda {same}")
        found.append(Package(name, exact, "NVIDIA driver, the whole of it", needs, (other,)))
        if int(branch) < int(PINNED[0]):
            found.append(Package(f"{name}-{branch}", exact, f"NVIDIA driver, branch {branch}", (f"{name} {same}",)))
    return found


def _dkms(name: str, other: str, version: str, flavour: str) -> Package:
    """Kernel modules, "built" for every kernel whose headers are there, as dkms does; and later, when headers come."""
    source = f"/usr/src/nvidia-{version}-{flavour}/nvidia.ko"
    build = f"/usr/sbin/{name}-build"
    script = f"""#!/bin/sh
# {EMULATED}: stands for dkms
for modules in /usr/lib/modules/*; do
  [ -e "$modules/build" ] || {{
    echo "{name}: no headers for kernel ${{modules##*/}}: its module is not built ({EMULATED})"; continue; }}
  install -D -m 644 {source} "$modules/updates/dkms/nvidia.ko"
  depmod "${{modules##*/}}"
done
"""
    remove = ('for modules in /usr/lib/modules/*; do\n  rm -f "$modules/updates/dkms/nvidia.ko"\n'
              '  depmod "${modules##*/}" || true\ndone\n')
    return Package(name, f"{version}-1", f"NVIDIA kernel module, {flavour}", ("kmod",), (other,),
                   (f"nvidia-kernel-{version}",), {source[1:]: module(version, flavour), build[1:]: script},
                   {f"etc/kernel/header_postinst.d/{name}": build}, f"{build}\n", remove)


def _pinning(branch: str) -> Package:
    names = "nvidia-open cuda-drivers nvidia-kernel-* nvidia-driver-cuda libcuda1 libnvidia-ml1"
    text = f"# {EMULATED}\nPackage: {names}\nPin: version {branch}.*\nPin-Priority: 1000\n"
    return Package(f"nvidia-driver-pinning-{branch}", f"{branch}-1", f"keeps the NVIDIA driver on branch {branch}",
                   conflicts=("nvidia-driver-pinning",), provides=("nvidia-driver-pinning",),
                   files={f"etc/apt/preferences.d/nvidia-driver-pinning-{branch}": text})


def _toolkit(release: str) -> list[Package]:
    dashed, version = release.replace(".", "-"), f"{NVCC[release]}-1"
    root = f"/usr/local/cuda-{release}"
    link = f"update-alternatives --install /usr/local/cuda cuda {root} {release.replace('.', '')} >/dev/null\n"
    unlink = f"update-alternatives --remove cuda {root} >/dev/null\n"
    return [Package(f"cuda-nvcc-{dashed}", version, "CUDA compiler", files=toolkit_files(release)),
            Package(f"cuda-toolkit-{dashed}", f"{release}.1-1", "CUDA toolkit, no driver in tow",
                    (f"cuda-nvcc-{dashed} (= {version})",), postinst=link, prerm=unlink)]


def _headers(kernel: str) -> Package:
    source = f"/usr/src/linux-headers-{kernel}"
    return Package(f"linux-headers-{kernel}", _debian(kernel), "headers of the controller's kernel",
                   files={f"{source[1:]}/Makefile": f"# {EMULATED}\n"},
                   links={f"usr/lib/modules/{kernel}/build": source},
                   postinst=f"run-parts --arg={kernel} /etc/kernel/header_postinst.d 2>/dev/null || true\n")
