"""The kernel's NVIDIA driver: what runs, what is on disk, and what is wrong with it. Pure: knows no pyinfra."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from qwen_rig.facts import _dpkg, _sh, _smi
from qwen_rig.host.nvidia_text import licence_flavour, loaded_module

SECTIONS = {
    "driver.proc": "cat /proc/driver/nvidia/version",
    "driver.sys": r"""
read -r v </sys/module/nvidia/version && printf 'version=%s\n' "$v"
read -r v </sys/module/nvidia/taint && printf 'taint=%s\n' "$v"
[ -d /sys/module/nouveau ] && echo nouveau=1
for lib in /usr/lib/*/libnvidia-ml.so.1 /usr/lib64/libnvidia-ml.so.1 /usr/lib/libnvidia-ml.so.1 \
  /usr/local/nvidia/lib64/libnvidia-ml.so.1; do
  [ -e "$lib" ] && printf 'lib=%s\n' "$(readlink -f "$lib")" && break
done
""",
    "driver.modules": "grep -E '^(nvidia|nouveau) ' /proc/modules",
    # The module that the next boot of this kernel would load.
    "driver.modinfo": r"""
[ -d "/lib/modules/$kernel" ] && have modinfo && modinfo nvidia | grep -E '^(version|license):'
""",
    **_dpkg.SECTIONS,
    **_smi.SECTIONS,
}

EMPTY: dict[str, Any] = {
    "loaded_version": None, "installed_version": None, "flavour": None, "cuda_version": None, "nouveau_loaded": False,
    "error": "unknown", "excerpt": None, "installed_flavour": None,
}


def proc_version(text: str) -> dict[str, str | None]:
    """/proc/driver/nvidia/version as `{version, flavour, arch}`. Raises ValueError on a text that it doesn't know."""
    found = loaded_module(text)
    if text.strip() and found["version"] is None:
        raise ValueError(f"/proc/driver/nvidia/version says {_smi.excerpt(text, 120)!r}")
    return found


def modules(text: str) -> set[str]:
    """Names of the loaded modules, of `lsmod` or /proc/modules."""
    lines = (line.split() for line in text.splitlines())
    return {words[0] for words in lines if len(words) >= 3 and words[1].isdigit()}


def modinfo(text: str) -> tuple[str | None, str | None]:
    """Version and flavour out of `modinfo nvidia`: the open module's license is `Dual MIT/GPL`
    (NVIDIA/open-gpu-kernel-modules#259)."""
    fields = dict(re.findall(r"^(version|license):\s*(.+?)\s*$", text, re.MULTILINE))
    licence = fields.get("license")
    return fields.get("version"), None if licence is None else "open" if "GPL" in licence else "proprietary"


def _error(smi: Mapping[str, str], text: Mapping[str, str], there: str | None,
           loaded: str | None) -> tuple[str | None, str | None]:
    """The error and the words that tell it; (None, None) only where nvidia-smi answered as it should.

    `there` is a version found on disk, `loaded` the one that runs: they tell an absent driver from a broken one.
    """
    if not smi.get("path"):
        if loaded:
            return "unknown", f"kernel module {loaded} is loaded, but there is no nvidia-smi to ask"
        return ("driver_not_loaded", f"driver {there} is on disk and not loaded") if there else ("not_installed", None)
    rc, table_rc = (int(smi[key]) if smi.get(key, "").isdigit() else 0 for key in ("rc", "table_rc"))
    rows, rest = _smi.read_csv(text["smi.csv"])
    if rc in (124, 137):
        return "unknown", "nvidia-smi did not answer in 20 s"
    bad = _smi.failure(rest, rc) or (_smi.cell_failure(rows) if rows else None)
    if bad:
        return _smi.public(bad), _smi.excerpt(rest) or _smi.failed_row(rows) or _smi.excerpt(text["smi.csv"])
    if not rows:
        return "unknown", _smi.excerpt(rest) or f"nvidia-smi said nothing (exit status {rc})"
    # 14: a corrupted infoROM is a warning of its own; the rows stand (nvml.h, NVML_ERROR_CORRUPTED_INFOROM).
    if rc not in (0, 14):
        return "unknown", _smi.excerpt(rest) or f"nvidia-smi ended with exit status {rc}"
    if table_rc not in (0, 14):
        words = text["smi.table"]
        return _smi.public(_smi.failure(words, table_rc)) or "unknown", _smi.excerpt(words)
    return None, None


def parts(text: Mapping[str, str]) -> tuple[dict[str, Any], str | None]:
    """The driver out of all the sections above, in the shape of EMPTY, and what of it couldn't be read: such a part
    costs no other, and leaves an error behind where there would be none."""
    lacking = next((name for name in SECTIONS if name not in text), None)
    problem = f"the probe's output lacks {lacking}" if lacking else None
    text = {**dict.fromkeys(SECTIONS, ""), **text}
    try:
        proc = proc_version(text["driver.proc"])
    except ValueError as wrong:
        proc, problem = proc_version(""), str(wrong)
    sys, smi, said = _sh.pairs(text["driver.sys"]), _sh.pairs(text["smi"]), _smi.banner(text["smi.table"])
    packages = _dpkg.read(text["dpkg"])
    loaded = proc["version"] or sys.get("version") or said["driver_version"]
    flavour = proc["flavour"] or (licence_flavour(sys["taint"]) if "taint" in sys else None)
    on_disk, disk_flavour = modinfo(text["driver.modinfo"])
    packaged, package_flavour = _dpkg.driver(packages)
    library = re.search(r"\.so\.(\d+\.\d+(?:\.\d+)*)$", sys.get("lib", ""))
    installed = on_disk or packaged or (library[1] if library else said["smi_version"])
    error, excerpt = _error(smi, text, installed, loaded)
    if problem and error in (None, "not_installed", "driver_not_loaded"):  # what was not seen is neither
        error = "unknown"
    return {
        "loaded_version": loaded,
        "installed_version": installed,
        "flavour": flavour,
        "cuda_version": said["cuda_version"],
        "nouveau_loaded": "nouveau" in sys or "nouveau" in modules(text["driver.modules"]),
        "error": error,
        "excerpt": excerpt,
        "installed_flavour": disk_flavour or package_flavour,
    }, problem


def read(text: Mapping[str, str]) -> dict[str, Any]:
    """The driver in the shape of EMPTY. Raises ValueError where a part of it can't be read."""
    driver, problem = parts(text)
    if problem:
        raise ValueError(problem)
    return driver
