"""The doctor over a folder of real failures: each gets the right name, or an honest none.

The folder is third-party data and no part of this repository: see tests/facts/test_corpus.py. Every file of these
kinds stands in NAMES: a new one fails.
"""

from __future__ import annotations

import pytest

from qwen_rig import doctor
from tests.facts.test_corpus import FILES, ROOT

pytestmark = pytest.mark.skipif(not FILES, reason=f"no corpus of real outputs at {ROOT} (set QWEN_RIG_FIXTURES)")

KINDS = ("smi-error", "console", "apt-failure", "mokutil", "lsmod")
NAMES: dict[str, str | None] = {
    "apt-failure/driver-535-open-two-repos.txt": "apt-two-nvidia-sources",
    "apt-failure/driver-565-unmet.txt": "apt-unmet-dependencies",
    "apt-failure/unattended-upgrade-history.log": "unattended-driver-upgrade",
    "console/cuda-mismatch-12.0-vs-11.7.txt": "nvcc-torch-mismatch",
    "console/dmesg-open-module-loading-575.57.08.txt": None,  # a driver that loads
    "console/flash-attn-no-kernel-image-5090d.txt": "flash-attn-lacks-arch",
    "console/flash-attn-no-torch-at-build.txt": "build-isolation-without-torch",
    "console/flash-attn-nvcc-not-found.txt": "nvcc-missing",
    "console/secure-boot-key-rejected.txt": "secure-boot-rejected",
    "console/torch-no-kernel-image.txt": "torch-lacks-arch",
    "console/torch-sm120-5090-laptop.txt": "torch-lacks-arch",
    "console/torch-sm120-warning-5090.txt": "torch-lacks-arch",
    "console/whisper-cpp-nvcc-compute_120-5080.txt": "nvcc-too-old",
    "lsmod/nouveau-loaded-hybrid.txt": "nouveau-holds-the-card",
    "lsmod/nvidia-loaded-suse.txt": None,
    "lsmod/ubuntu1804-neither.txt": None,
    "mokutil/disabled.txt": None,
    "mokutil/enabled.txt": "secure-boot-on",
    "mokutil/no-efi.txt": None,
    "smi-error/couldnt-communicate.txt": "driver-not-loaded",
    "smi-error/handle-gpu-is-lost.txt": "gpu-fell-off-the-bus",
    "smi-error/handle-unknown-error.txt": "gpu-fell-off-the-bus",
    "smi-error/mismatch-580.178-with-nvml-line.txt": "library-mismatch",
    "smi-error/mismatch-illinois.txt": "library-mismatch",
    "smi-error/no-devices-5090.txt": "no-devices",
    "smi-error/nvml-unknown-error-container.txt": "container-lost-device",
    "smi-error/smi-missing-no-such-file.txt": "nvidia-smi-missing",
    "smi-error/smi-missing-sudo.txt": "nvidia-smi-missing",
    "smi-error/smi-missing-ubuntu-2004.txt": "nvidia-smi-missing",
    "smi-error/wsl-gpu-access-blocked.txt": "wsl-gpu-blocked",
}


def test_every_failure_of_the_corpus_is_named_here() -> None:
    assert {name for name in FILES if name.split("/")[0] in KINDS} == NAMES.keys()


@pytest.mark.parametrize("name", sorted(NAMES))
def test_a_real_failure_gets_the_right_name_and_no_other(name: str) -> None:
    told = [found.name for found in doctor.findings((ROOT / name).read_text(errors="replace").splitlines())]
    assert told == ([NAMES[name]] if NAMES[name] else [])
