"""Travels with certify.py, and read by facts/: what nvidia-smi and the driver's /proc file print, as values. Pure.

Any Python from 3.9 on runs it, by itself.
"""

from __future__ import annotations

import re

# Where nvidia-smi is where PATH doesn't lead to it: WSL, containers that mount it, GKE.
PLACES = ("/usr/bin", "/usr/lib/wsl/lib", "/usr/local/nvidia/bin", "/opt/bin", "/home/kubernetes/bin/nvidia/bin")
# What a cell says in place of a value: [N/A], [Not Supported], N/A, [Unknown Error], ERR!
_NO_VALUE = re.compile(r"^(\[.*\]|n/a|unknown( error)?|err!|not supported|)$", re.IGNORECASE)
_UUID = re.compile(r"(GPU|MIG)-[0-9A-Za-z-]+$")
_VERSION = r"(\d+\.\d+(?:\.\d+)*)"
# 610 and later say KMD and CUDA UMD; what they leave at the old words is "Deprecated" (seen in public captures).
_DRIVER = (rf"\bKMD Version\s*:\s*{_VERSION}", rf"\bDriver Version\s*:\s*{_VERSION}")
_CUDA = (r"\bCUDA UMD Version\s*:\s*(\d+\.\d+)", r"\bCUDA Version\s*:\s*(\d+\.\d+)")
_SMI = (rf"\bNVIDIA-SMI(?: version\s*:)?\s+{_VERSION}",)
_MODULE = re.compile(r"NVRM version:\s+NVIDIA UNIX (?:(Open Kernel Module) for (\S+)|(\S+) Kernel Module)\s+"
                     r"(\d+\.[\d.]+)")


def value(cell: str | None) -> str | None:
    """A cell's text, or None where nvidia-smi has none to give."""
    text = (cell or "").strip()
    return None if _NO_VALUE.match(text) else text


def read_csv(text: str, fields: tuple[str, ...] = ()) -> tuple[list[dict[str, str]], str]:
    """Rows of `--query-gpu … --format=csv` by field name, units taken off the header; and the text that is no row.

    `fields` names the columns where there is no header (`--format=csv,noheader`).
    """
    rows, rest, names = [], [], list(fields)
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.split(",")]
        if not names and _is_header(cells):
            names = [cell.split(" [")[0] for cell in cells]
            continue
        if names and (len(cells) >= len(names) or (cells[0].isdigit() and names[0] == "index")
                      or ("uuid" in names and any(map(_UUID.match, cells)))):
            rows.append(dict(zip(names, _aligned(cells, names))))  # noqa: B905 (Python 3.9 has no strict)
        elif line.strip():
            rest.append(line.strip())
    return rows, "\n".join(rest)


def _aligned(cells: list[str], names: list[str]) -> list[str]:
    """As many cells as there are names: those of a comma in the name are one (nvidia-smi quotes nothing), those that
    nobody asked for are left out, those that are lacking are empty.

    Where the name ends, and whether one before is lacking, the UUID's form tells; in a row without one, all that is
    over is the name's.
    """
    at = next((at for at, name in enumerate(names) if name in ("name", "process_name")), None)
    surplus = len(cells) - len(names)
    ends = next((place for place, cell in enumerate(cells) if _UUID.match(cell)), None) if "uuid" in names else None
    if surplus > 0 and at is not None:
        surplus = surplus if ends is None else min(surplus, max(0, ends - names.index("uuid")))
        cells = [*cells[:at], _joined(cells[at: at + surplus + 1]), *cells[at + surplus + 1:]]
    elif surplus < 0 and at is not None and ends is not None and ends < names.index("uuid"):
        lacking = [""] * (names.index("uuid") - ends)
        first = at if cells[0].isdigit() else 0  # the index stands first, and the name behind it
        cells = [*cells[:first], *lacking, *cells[first:]]
    return (cells + [""] * len(names))[:len(names)]


def _joined(cells: list[str]) -> str:
    """The cells of one name: none twice, and none without a letter."""
    return ", ".join(part for part in dict.fromkeys(cells) if re.search("[A-Za-z]", part))


def _is_header(cells: list[str]) -> bool:
    return len(cells) > 1 and all(re.fullmatch(r"[a-z][\w.]*( \[[^]]*\])?", cell) for cell in cells)


def banner(text: str) -> dict[str, str | None]:
    """Versions out of the table's head, `--version` or `-q`: `{smi_version, driver_version, cuda_version}`."""
    def first(patterns: tuple[str, ...]) -> str | None:
        hits = (re.search(pattern, text, re.IGNORECASE) for pattern in patterns)
        return next((hit[1] for hit in hits if hit), None)

    return {"smi_version": first(_SMI), "driver_version": first(_DRIVER), "cuda_version": first(_CUDA)}


def loaded_module(text: str) -> dict[str, str | None]:
    """/proc/driver/nvidia/version as `{version, flavour, arch}`; each None where the text is none that we know."""
    found = _MODULE.search(text)
    if not found:
        return {"version": None, "flavour": None, "arch": None}
    return {"version": found[4], "flavour": "open" if found[1] else "proprietary", "arch": found[2] or found[3]}


def licence_flavour(taint: str) -> str:
    """The flavour of a loaded module by its taint: P is for a proprietary licence (kernel:
    Documentation/admin-guide/tainted-kernels)."""
    return "proprietary" if "P" in taint else "open"
