"""Travels with certify.py: what nvidia-smi, /sys, /proc and the kernel log say of each card. Needs no torch, no root.

Nothing is judged here: every function returns what it read, None where the driver gives no value.
"""

import os
import re
import shutil
import subprocess
import time
from pathlib import Path

from nvidia_text import PLACES, banner, licence_flavour, loaded_module, read_csv, value
from processes import NotRun, one_line, result

PCI = Path("/sys/bus/pci/devices")
IDENTITY = ("index", "name", "uuid", "pci.bus_id", "memory.total", "pci.device_id", "pci.sub_device_id", "compute_cap",
            "vbios_version", "mig.mode.current", "driver_version", "pcie.link.gen.max", "pcie.link.width.max",
            "power.default_limit", "power.limit", "power.max_limit", "ecc.mode.current", "persistence_mode")
LIVE = ("temperature.gpu", "power.draw", "clocks.current.sm", "utilization.gpu", "memory.used",
        "pcie.link.gen.current", "pcie.link.width.current", "pstate", "clocks_event_reasons.active",
        "temperature.gpu.tlimit")
ECC = ("ecc.mode.current", "ecc.errors.uncorrected.volatile.total", "ecc.errors.uncorrected.aggregate.total",
       "ecc.errors.corrected.volatile.total", "remapped_rows.pending", "remapped_rows.failure",
       "retired_pages.pending", "gpu_recovery_action")
OLD_WORDS = {"clocks_event_reasons.active": "clocks_throttle_reasons.active"}  # before driver 535
REASONS = (  # nvml.h, nvmlClocksEventReasons: bit → what holds the clocks down
    (0x1, "idle"), (0x2, "application_clocks"), (0x4, "software_power_cap"), (0x8, "hardware_slowdown"),
    (0x10, "sync_boost"), (0x20, "software_thermal"), (0x40, "hardware_thermal"), (0x80, "hardware_power_brake"),
    (0x100, "display_clocks"))
KERNEL_LOG = re.compile(r"NVRM|\bXid\b|RmInitAdapter|\bAER\b|PCIe Bus Error|pcieport|nouveau|nvidia", re.IGNORECASE)


def smi():
    """Where nvidia-smi is, or None."""
    return shutil.which("nvidia-smi") or shutil.which("nvidia-smi", path=os.pathsep.join(PLACES))


def ask(arguments, seconds=30):
    """What nvidia-smi prints; raises NotRun where it isn't there or doesn't answer."""
    program = smi()
    if program is None:
        raise NotRun("no nvidia-smi on this host")
    try:
        process = subprocess.Popen([program, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                   errors="replace")
        return process.communicate(timeout=seconds)[0]
    except OSError as error:
        raise NotRun(f"nvidia-smi: {one_line(error)}") from None
    except subprocess.TimeoutExpired as error:
        process.kill()  # and not waited for: one that hangs in the driver doesn't die of it
        raise NotRun(f"nvidia-smi: {one_line(error)}") from None


def reading(cell):
    """A cell as a number without its unit, else as text; None where nvidia-smi has none to give."""
    text = value(cell)
    found = re.fullmatch(r"(-?\d+(?:\.\d+)?)(?: (?:MiB|W|MHz|%|C|us))?", text or "")
    if not found:
        return text
    return float(found[1]) if "." in found[1] else int(found[1])


def query(fields, uuid=None, what="gpu"):
    """Rows of --query-gpu by field (of that card only); a field that this driver doesn't know is asked by its old word,
    else left out."""
    asked = [*fields, *(["uuid"] if uuid and "uuid" not in fields else [])]
    while asked:
        said = ask([f"--query-{what}={','.join(asked)}", "--format=csv,noheader"])
        unknown = re.search(r'Field "([^"]+)" is not a valid field', said)
        if not unknown:
            break
        at = asked.index(unknown[1])
        asked[at: at + 1] = [OLD_WORDS[unknown[1]]] if unknown[1] in OLD_WORDS else []
    new_words = {old: new for new, old in OLD_WORDS.items()}
    told, _ = read_csv(said, tuple(asked)) if asked else ([], "")
    rows = [{**dict.fromkeys(fields), **{new_words.get(name, name): reading(cell) for name, cell in row.items()}}
            for row in told]
    return rows if uuid is None else [row for row in rows if row["uuid"] == uuid]


def cards():
    """One dict a GPU that nvidia-smi lists, by the names of IDENTITY; [] where it lists none."""
    try:
        return [row for row in query(IDENTITY) if row.get("uuid")]
    except NotRun:
        return []


def slot(bus_id):
    """`00000000:01:00.0` (nvidia-smi) as /sys spells it: `0000:01:00.0`."""
    domain, _, rest = str(bus_id or "").lower().partition(":")
    return f"{int(domain or '0', 16):04x}:{rest}"


def read(path):
    try:
        return Path(path).read_text(errors="replace").strip()
    except OSError:
        return None


def on_bus(bus_id):
    """The card as /sys/bus/pci has it: ids, link (now and at most), and the errors that AER has counted."""
    folder = PCI / slot(bus_id)
    found = {name: read(folder / name) for name in (
        "vendor", "device", "subsystem_vendor", "subsystem_device", "current_link_speed", "current_link_width",
        "max_link_speed", "max_link_width")}
    found["present"] = folder.is_dir()
    for kind in ("correctable", "nonfatal", "fatal"):
        total = re.search(r"^TOTAL_ERR_\w+ (\d+)", read(folder / f"aer_dev_{kind}") or "", re.MULTILINE)
        found[f"aer_{kind}"] = int(total[1]) if total else None
    return found


def bus(listed, devices=PCI):
    """`silent`: slots of NVIDIA's GPUs on the PCI bus that nvidia-smi doesn't list. Such a card has fallen off the bus,
    or, in a container, wasn't handed in. Those given to a virtual machine (vfio-pci) aren't this host's."""
    known, silent = {slot(row.get("pci.bus_id")) for row in listed}, []
    for folder in sorted(devices.glob("*")):
        display = (read(folder / "class") or "")[:6] in ("0x0300", "0x0302")
        if display and read(folder / "vendor") == "0x10de" and folder.name not in known:
            driver_ = folder / "driver"
            if not (driver_.is_symlink() and os.readlink(driver_).endswith("/vfio-pci")):
                silent.append(folder.name)
    return result("measured", data={"silent": silent})


def identity(card):
    """All that names the card; nothing of it is believed here."""
    return result("measured", data={"smi": card, "pci": on_bus(card["pci.bus_id"]) if card.get("pci.bus_id") else {}})


def driver():
    """The loaded driver: version, flavour, and the newest CUDA that it serves."""
    proc, table = read("/proc/driver/nvidia/version") or "", ""
    taint = read("/sys/module/nvidia/taint")
    try:
        table = ask([])
    except NotRun:
        if not proc:
            raise
    loaded, words = loaded_module(proc), banner(table)
    version = loaded["version"] or words["driver_version"]
    flavour = loaded["flavour"] or (licence_flavour(taint) if taint is not None else None)
    if not version:
        raise NotRun(f"no NVIDIA driver answers: {one_line(table, 160) or 'nothing is loaded'}")
    return result("measured", data={
        "version": version, "flavour": flavour, "cuda": words["cuda_version"],
        "emulated": "EMULATED" in proc or "EMULATED" in table})


def usage(card, ours=(), samples=3):
    """Who else is at work on the card, before we begin: utilization (the most of some samples), memory, processes.

    In a container the processes of others are hidden, but what they use is not.
    """
    busy, used = [], None
    for _ in range(samples):
        row = (query(("utilization.gpu", "memory.used"), card["uuid"]) or [{}])[0]
        busy.append(row.get("utilization.gpu"))
        used = row.get("memory.used")
        time.sleep(0.3)
    people = []
    for row in query(("pid", "process_name", "gpu_uuid", "used_memory"), what="compute-apps"):
        if row["gpu_uuid"] == card["uuid"] and row["pid"] not in ours:
            people.append({"pid": row["pid"], "name": str(row["process_name"]).rpartition("/")[2],
                           "memory_mib": row["used_memory"]})
    known = [x for x in busy if isinstance(x, (int, float))]
    return result("measured", data={"utilization": max(known) if known else None, "memory_mib": used,
                                    "processes": people})


def busy(found, limits):
    """Whether somebody else is at work on the card, by those limits; what can't be read is no proof of use."""
    data = found.get("data") or {}
    return bool(data.get("processes") or (data.get("utilization") or 0) >= limits["utilization"]
                or (data.get("memory_mib") or 0) >= limits["memory_mib"])


def ecc(card):
    """ECC's mode and what it has counted; a card without it says [N/A]."""
    rows = query(ECC, card["uuid"])
    if not rows:
        raise NotRun("nvidia-smi gives no row for this card")
    return result("measured", data=rows[0])


def sample(uuid):
    """One live reading of the card, with the reasons that hold its clocks down as words."""
    rows = query(LIVE, uuid)
    if not rows:
        return None
    row = rows[0]
    bits = row.pop("clocks_event_reasons.active", None)
    if isinstance(bits, str) and bits.startswith("0x"):
        row["reasons"] = [name for bit, name in REASONS if int(bits, 16) & bit]
    elif isinstance(bits, int):
        row["reasons"] = [name for bit, name in REASONS if bits & bit]
    else:
        row["reasons"] = None
    return row


def kernel_log():
    """Lines of this boot's kernel log that are about GPUs or the PCI bus, whichever way it can be read without root."""
    refused = []
    for command in (["dmesg"], ["journalctl", "-k", "-b", "--no-pager", "-q", "-o", "short-monotonic"],
                    ["cat", "/var/log/kern.log"]):
        if shutil.which(command[0]) is None:
            continue
        try:
            done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=30,
                                  env={**os.environ, "LC_ALL": "C"})
        except (OSError, subprocess.TimeoutExpired) as error:
            refused.append(f"{command[0]}: {one_line(error, 80)}")
            continue
        if done.returncode == 0 and done.stdout.strip():
            lines = [line.strip()[:300] for line in done.stdout.splitlines() if KERNEL_LOG.search(line)]
            return result("measured", data={"source": " ".join(command), "lines": lines[-300:], "seen": len(lines)})
        said = one_line(done.stderr, 80).removeprefix(f"{command[0]}: ")
        refused.append(f"{command[0]}: {said or 'nothing to read'}")
    who = "here, even as root" if os.geteuid() == 0 else "without root"
    raise NotRun(f"not readable {who} (" + "; ".join(refused or ["no dmesg, no journalctl"]) + ")")
