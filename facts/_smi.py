"""What nvidia-smi says, in all the words it has used from driver 384 to 610. Pure: knows no pyinfra.

nvidia-smi prints its failures on stdout as often as on stderr, so both are read together with the exit status
(NVML's return codes: 4 no permission, 6 not found, 9 driver not loaded, 15 GPU is lost, 16 reset required,
18 library and kernel module differ; nvml.h, nvmlReturn_t).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from qwen_rig.host.nvidia_text import PLACES
from qwen_rig.host.nvidia_text import banner as banner  # these three are handed on
from qwen_rig.host.nvidia_text import read_csv as read_csv
from qwen_rig.host.nvidia_text import value as value

FIELDS = ("index", "name", "uuid", "pci.bus_id", "memory.total")
# Newest first: drivers before 510 refuse compute_cap, those before 450 mig.mode.current too.
EXTRA = ("compute_cap", "mig.mode.current")

FIND = rf"""
smi=$(command -v nvidia-smi)
for p in {" ".join(PLACES)}; do
  [ -n "$smi" ] && break; [ -x "$p/nvidia-smi" ] && smi=$p/nvidia-smi
done
smi_unfit=
case $smi in /*) gather "$smi"; judge; smi_unfit=$fault; [ -z "$fault" ] || smi= ;; esac
"""


def query(extra: tuple[str, ...] = EXTRA) -> str:
    """Shell that asks for the GPUs as CSV, again with fewer fields where the driver refuses one, and last with -L.

    Leaves $smi_rc (exit status), $smi_csv and $smi_list (text) behind; all empty where there is no nvidia-smi.
    """
    asked = (",".join(FIELDS + extra[refused:]) for refused in range(len(extra) + 1))
    return FIND + rf"""
smi_rc= smi_csv= smi_list=
if [ -n "$smi" ]; then
  for q in {" ".join(asked)}; do
    smi_csv=$(lim "$smi" --query-gpu="$q" --format=csv 2>&1); smi_rc=$?
    case $smi_csv in *"not a valid field"*) ;; *) break ;; esac
  done
  case $smi_csv in *"not a valid field"*) smi_list=$(lim "$smi" -L 2>&1) ;; esac
fi
"""


# The table tells CUDA's version and who computes. Where the query failed as a whole it would only say the same again.
TABLE = r"""
smi_table_rc= smi_table=
if [ -n "$smi" ]; then case $smi_rc:$smi_list in
  0:*|14:*|*:?*) smi_table=$(lim "$smi" 2>&1); smi_table_rc=$? ;;
esac; fi
"""

SECTIONS = {
    "smi": r"""printf 'path=%s\nrc=%s\ntable_rc=%s\nunfit=%s\n' "$smi" "$smi_rc" "$smi_table_rc" "$smi_unfit" """,
    "smi.csv": r"""printf '%s\n' "$smi_csv" """,
    "smi.list": r"""printf '%s\n' "$smi_list" """,
    "smi.table": r"""printf '%s\n' "$smi_table" """,
}

# First match wins. Texts: docs/sources.md (messages) and nvidia-smi(1).
_FAILURES = (
    (r"couldn't communicate with the NVIDIA driver|Failed to initialize NVML: Driver Not Loaded",
     "driver_not_loaded"),
    (r"Driver/library version mismatch", "driver_library_mismatch"),
    (r"blocked by the operating system", "gpu_access_blocked"),
    (r"requires reset|reset required", "gpu_requires_reset"),
    (r"Insufficient Permissions", "insufficient_permissions"),
    (r"GPU is lost|fallen off the bus|Unable to determine the device handle", "gpu_lost"),
    (r"No devices were found", "no_devices"),
    (r"not a valid field to query", "bad_query"),
    (r"Failed to initialize NVML", "nvml_unknown_error"),
    (r"couldn't find .*libnvidia-ml", "nvml_missing"),
    (r"(?:^|/|\s|')nvidia-smi'?:? (?:No such file or directory|(?:command )?not found)", "not_installed"),
)
# What has a name's form and is none: ids, "GPU 0", "sm_120", sizes, and NVML's words of results.
_NO_NAME = re.compile(r"^(GPU|MIG)[- ]|^sm_|\b[KMG]i?B$|^(Invalid|Insufficient|Unknown|Function|Argument|Driver|"
                      r"Already|In use|Operation|Not|No|Version|Library) ", re.IGNORECASE)
LEAST_MIB = 256  # no card that nvidia-smi lists has less memory
_CODES = {4: "insufficient_permissions", 6: "no_devices", 9: "driver_not_loaded", 15: "gpu_lost",
          16: "gpu_requires_reset", 18: "driver_library_mismatch"}
# The names that the facts promise; anything finer is told by the excerpt.
ERRORS = ("not_installed", "driver_not_loaded", "driver_library_mismatch", "no_devices", "gpu_lost",
          "gpu_requires_reset", "insufficient_permissions", "bad_query", "unknown")


def number(cell: str | None) -> int | None:
    """The whole number in `32607 MiB`, `38 %` or `1024`; None where there is none (never int() a raw cell)."""
    found = re.match(r"(\d+)(?:\.\d+)?(?:\s+\S+)?$", value(cell) or "")
    return int(found[1]) if found else None


def _mebibytes(cell: str | None) -> int | None:
    """The memory in `32607 MiB` or `32607`: whole, and of a size that a GPU can have; None for anything else."""
    found = re.fullmatch(r"([0-9]{3,8})(?: MiB)?", value(cell) or "")
    return int(found[1]) if found and int(found[1]) >= LEAST_MIB else None


def _index(cell: str | None) -> int | None:
    """A GPU's number on its host; None for anything else."""
    return int(cell) if re.fullmatch("[0-9]{1,3}", cell or "") and cell else None


def _mig(cell: str | None) -> bool | None:
    """Whether MIG is on; None where there is none, and where that isn't known (odd_cells tells which)."""
    return {"Enabled": True, "Disabled": False}.get(cell or "")


def _capability(cell: str | None) -> str | None:
    """A compute capability, `12.0`; None for anything else."""
    text = value(cell) or ""
    return text if re.fullmatch(r"\d{1,2}\.\d", text) else None


def _bus_id(cell: str | None) -> str | None:
    """A PCI address, `00000000:01:00.0`; None for anything else."""
    text = value(cell) or ""
    return text if re.fullmatch(r"[0-9A-Fa-f]{4,8}:[0-9A-Fa-f]{2}:[0-9A-Fa-f]{2}\.[0-7]", text) else None


def _name(cell: str | None) -> str | None:
    """A card's name; None where the cell is something else's: an id, an address, a size, a state, a failure."""
    text = value(cell) or ""
    named = re.fullmatch(r"[A-Za-z][^\[\]:]*[ \d-][^\[\]:]*", text) and re.search("[A-Za-z]{2}", text)
    return text if named and not _NO_NAME.search(text) and not failure(text) else None


def uuid(cell: str | None) -> str | None:
    """A GPU's id, by which files are named; None where that is none."""
    return cell if cell and re.fullmatch(r"[A-Za-z]+-[0-9A-Za-z-]{1,64}", cell) else None


def _gpu(cell: str | None) -> str | None:
    """The id of a whole GPU; None for anything else, as a MIG device's."""
    text = uuid(value(cell))
    return text if text and text.startswith("GPU-") else None


def gpus(rows: list[dict[str, str]]) -> list[dict[str, Any]]:
    """GPUs as the facts give them: names and ids are nvidia-smi's words; None where a cell has no value, or one that
    can't be of its column."""
    return [
        {
            "index": _index(row.get("index", str(position))),
            "name": _name(row.get("name")),
            "uuid": _gpu(row.get("uuid")),
            "pci_bus_id": _bus_id(row.get("pci.bus_id")),
            "memory_mib": _mebibytes(row.get("memory.total")),
            "compute_capability": _capability(row.get("compute_cap")),
            "mig": _mig(row.get("mig.mode.current")),
        }
        for position, row in enumerate(rows)
    ]


def read_list(text: str) -> list[dict[str, str]]:
    """The GPUs of `nvidia-smi -L`, as rows of the query. MIG devices are indented lines, and are no GPUs."""
    found = re.finditer(r"^GPU ([^:]*): (.*) \(UUID: ([^()]*)\)\s*$", text, re.MULTILINE)
    return [{"index": m[1], "name": m[2], "uuid": m[3]} for m in found]


def beside_list(text: str) -> str:
    """The lines of `nvidia-smi -L` that are neither a GPU's nor, behind blanks, a MIG device's."""
    return "\n".join(line for line in text.splitlines() if line[:1].strip() and not read_list(line))


def processes(table: str) -> list[dict[str, Any]]:
    """The process rows of the table, `{pid, name}`; names are cut short by nvidia-smi."""
    row = re.compile(r"^\|\s+\d+\s+(?:\S+\s+\S+\s+)?(\d+)\s+[CGM+]+\s+(\S.*?)\s+(?:\d+MiB|N/A)\s*\|\s*$", re.MULTILINE)
    return [{"pid": int(m[1]), "name": m[2].rpartition("/")[2]} for m in row.finditer(table)]


def failure(text: str, rc: int | None = None) -> str | None:
    """What kind of failure a text (or failing that, the exit status) tells of, in fine words; None for none."""
    for pattern, name in _FAILURES:
        if re.search(pattern, text, re.IGNORECASE | re.MULTILINE):
            return name
    return _CODES.get(rc or 0)


def cell_failure(rows: list[dict[str, str]]) -> str | None:
    """The failure that the rows of our query tell of: a cell's ([GPU requires reset]), or of a card of which nothing
    is told; a cell without a value beside a card that has a name is none."""
    cells = [cell for row in rows for cell in row.values() if _word(cell)]
    known = next((name for cell in cells if (name := failure(cell)) not in (None, "insufficient_permissions")), None)
    return known or ("unknown" if any(_mute(row) for row in rows) else None)


def failed_row(rows: list[dict[str, str]]) -> str | None:
    """The first row that tells of a failure, in nvidia-smi's words; None where none does."""
    return next((excerpt(", ".join(dict.fromkeys(row.values()))) for row in rows if cell_failure([row])), None)


def _word(cell: str) -> bool:
    """Whether a cell holds nvidia-smi's words on itself instead of a value."""
    return cell.startswith("[") or value(cell) is None


def _mute(row: dict[str, str]) -> bool:
    """Whether a row tells neither what card it is of nor which, nor where."""
    return not (_name(row.get("name")) or _gpu(row.get("uuid")) or _bus_id(row.get("pci.bus_id")))


def odd_cells(rows: list[dict[str, str]]) -> dict[str, str]:
    """`memory.total of GPU 1` → the word that stands in the value's place, where it tells of an error, or is one that
    the column can't have. [N/A] and [Not Supported] are answers; a row that tells nothing at all is a failure."""
    read: dict[str, Callable[[str], Any]] = {
        "index": _index, "name": _name, "uuid": _gpu, "pci.bus_id": _bus_id, "memory.total": _mebibytes,
        "compute_cap": _capability, "mig.mode.current": _mig}
    found = {}
    for position, row in enumerate(rows):
        told = _index(row.get("index"))
        for column, cell in row.items() if not _mute(row) else ():
            absent = column not in read or re.fullmatch(r"\[?(N/A|Not Supported)\]?( \S+)?", cell, re.I)
            if not absent and read[column](cell) is None:
                found[f"{column} of GPU {position if told is None else told}"] = excerpt(cell, 60) or "no word"
    return found


def public(name: str | None) -> str | None:
    """A fine failure name as one of ERRORS."""
    return name if name is None or name in ERRORS else "unknown"


def excerpt(text: str, limit: int = 300) -> str | None:
    """A text as one line for a person, cut at `limit` characters; None for an empty one."""
    line = " ".join(text.split())
    return (line[: limit - 1] + "…" if len(line) > limit else line) or None
