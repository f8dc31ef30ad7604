"""The parsers over a folder of real outputs, with hand-checked values in its expected.json.

The folder is third-party data and no part of this repository: QWEN_RIG_FIXTURES names it, else ../shared/fixtures is
looked for beside the checkout; without it everything here is skipped. Each kind of file is either read by a parser
that a fact uses, and must then match in every key, or stands in NOT_READ with the reason: a new kind fails.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qwen_rig.facts import _dpkg, _driver, _nvcc, _smi

ROOT = Path(os.environ.get("QWEN_RIG_FIXTURES") or Path(__file__).parents[2].parent / "shared" / "fixtures")
EXPECTED = ROOT / "expected.json"
FILES: dict[str, Any] = json.loads(EXPECTED.read_text())["files"] if EXPECTED.is_file() else {}

pytestmark = pytest.mark.skipif(not FILES, reason=f"no corpus of real outputs at {ROOT} (set QWEN_RIG_FIXTURES)")

NOT_READ = {
    "apt_failure": "a failure's text, no state",
    "apt_policy": "the plan takes versions from dpkg, and apt resolves the rest",
    "conda_env_list_json": "conda is never run", "conda_info_json": "conda is never run",
    "conda_list_json": "conda is never run", "conda_list_text": "conda is never run",
    "conda_meta_json": "a record's file name tells its version",
    "console": "a failure's text, no state",
    "lspci_nn": "/sys/bus/pci tells it", "lspci_nnk": "/sys/bus/pci tells it", "lspci_plain": "/sys/bus/pci tells it",
    "lspci_vmm_nn": "/sys/bus/pci tells it",
    "mokutil_sb_state": "the UEFI variable itself is read",
    "nvidia_smi_xml": "the CSV query tells what is needed",
    "pip_freeze": "pip is never run", "pip_list_columns": "pip is never run",
    "ubuntu_drivers_devices": "its recommendation is the wrong flavour for Blackwell",
}
# Keys of kinds that are read, which no fact needs.
UNREAD_KEYS = {
    "nvidia_smi_table": {"gpus": "they come from the CSV query"},
    "nvidia_smi_q": {"gpus": "they come from the CSV query", "attached_gpus": "likewise"},
    "nvidia_smi_error": {"nvml_version": "it drops the version's last part"},
    "nvcc": {"build": "not needed", "origin": "not in the text", "typical_rc": "not in the text"},
    "dpkg_l": {"nvidia_driver_metapackage": "the packages below it tell the driver"},
}


def _csv(text: str, expect: dict[str, Any]) -> dict[str, Any]:
    query = expect.get("query", "")
    rows, rest = _smi.read_csv(text, tuple(query.split(",")) if query else ())
    assert rest == ""
    readers: dict[str, Callable[[dict[str, str]], Any]] = {
        "index": lambda row: _smi.number(row.get("index")), "name": lambda row: row.get("name"),
        "uuid": lambda row: row.get("uuid"), "driver_version": lambda row: _smi.value(row.get("driver_version")),
        "compute_cap": lambda row: _smi.value(row.get("compute_cap")),
        "memory_total_mib": lambda row: _smi.number(row.get("memory.total")),
        "memory_used_mib": lambda row: _smi.number(row.get("memory.used")),
        "memory_free_mib": lambda row: _smi.number(row.get("memory.free")),
        "fan_speed": lambda row: _smi.number(row.get("fan.speed")),
    }
    facts = _smi.gpus(rows)
    for fact, wanted in zip(facts, expect["gpus"], strict=True):
        assert fact["memory_mib"] == wanted.get("memory_total_mib", fact["memory_mib"])
        assert fact["compute_capability"] == wanted.get("compute_cap", fact["compute_capability"])
    return {
        "header": not query, "query": query, "rows": len(rows), "units_in_cells": "MiB" in text.partition("\n")[2],
        "driver_version": _smi.value(rows[0].get("driver_version")),
        "gpus": [{key: readers[key](row) for key in wanted} for row, wanted in zip(rows, expect["gpus"], strict=True)],
    }


def _failure(text: str, expect: dict[str, Any]) -> dict[str, Any]:
    fine = _smi.failure(text)
    assert _smi.public(fine) in _smi.ERRORS
    said, (rows, _) = _smi.banner(text), _smi.read_csv(text)
    return {"driver_version": said["driver_version"], "cuda_version": said["cuda_version"],
            "gpus": _smi.gpus(rows), "error": fine}


def _table(text: str, expect: dict[str, Any]) -> dict[str, Any]:
    return {**_smi.banner(text), "error": _smi.failure(text)}


def _version(text: str, expect: dict[str, Any]) -> dict[str, Any]:
    said = _smi.banner(text)
    return {key: said[key] for key in ("driver_version", "cuda_version")}


def _list(text: str, expect: dict[str, Any]) -> dict[str, Any]:
    gpus = [{key: gpu[key] for key in ("index", "name", "uuid")} for gpu in _smi.gpus(_smi.read_list(text))]
    return {"gpus": gpus, "mig_devices": len([line for line in text.splitlines() if line.startswith("  MIG ")])}


def _dpkg_l(text: str, expect: dict[str, Any]) -> dict[str, Any]:
    found = _dpkg.read(text)
    return {"installed": {name: found.get(name) for name in expect["installed"]},
            "driver_upstream_version": _dpkg.driver(found)[0]}


def _lsmod(text: str, expect: dict[str, Any]) -> dict[str, Any]:
    loaded = _driver.modules(text)
    return {"nvidia_loaded": "nvidia" in loaded, "nouveau_loaded": "nouveau" in loaded}


def _nvcc_v(text: str, expect: dict[str, Any]) -> dict[str, Any]:
    found = _nvcc.version(text)
    return {**found, "error": None if found["release"] else "not_installed"}


READ: dict[str, Callable[[str, dict[str, Any]], dict[str, Any]]] = {
    "nvidia_smi_csv": _csv, "nvidia_smi_error": _failure, "nvidia_smi_list": _list, "nvidia_smi_table": _table,
    "nvidia_smi_version": _version, "nvidia_smi_q": _version, "nvcc": _nvcc_v, "dpkg_l": _dpkg_l, "lsmod": _lsmod,
    "proc_version": lambda text, expect: dict(_driver.proc_version(text)),
}


def test_every_kind_of_file_is_read_or_left_for_a_reason() -> None:
    assert {entry["kind"] for entry in FILES.values()} == READ.keys() | NOT_READ.keys()


@pytest.mark.parametrize("name", [name for name in sorted(FILES) if FILES[name]["kind"] in READ])
def test_a_real_output_is_read_as_a_person_reads_it(name: str) -> None:
    kind, expect = FILES[name]["kind"], FILES[name]["expect"]
    found = READ[kind]((ROOT / name).read_text(errors="replace"), expect)
    for key, value in expect.items():
        if key not in UNREAD_KEYS.get(kind, {}):
            assert found[key] == value, key


@pytest.mark.skipif(not (ROOT / "own-h100").is_dir(), reason="the corpus has no rented H100")
def test_the_rented_h100() -> None:
    """Driver 580.159.04, open modules; captured whole on one machine (the corpus' SOURCES.md)."""
    table, query = ((ROOT / "own-h100" / name).read_text() for name in ("nvidia-smi.txt", "query.csv"))
    empty = dict.fromkeys(_driver.SECTIONS, "")
    driver = _driver.read({**empty, "smi": "path=/usr/bin/nvidia-smi\nrc=0\ntable_rc=0", "smi.csv": query,
                           "smi.table": table})
    assert (driver["loaded_version"], driver["cuda_version"], driver["error"]) == ("580.159.04", "13.0", None)
    gpu, = _smi.gpus(_smi.read_csv(query)[0])
    assert (gpu["memory_mib"], gpu["compute_capability"], gpu["mig"]) == (81559, "9.0", False)
