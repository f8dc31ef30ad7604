"""What the card, its driver and the bus say of themselves: measurements → checks. Pure."""

from __future__ import annotations

import re
from typing import Any

from qwen_rig.certificate._verdict import NONE_ON_RECORD, Case, check, number, version, worst
from qwen_rig.certificate.gates import Gate
from qwen_rig.certificate.model import Check

VARIANTS = ("TI", "SUPER", "LAPTOP", "D")
WIDTHS = (1, 2, 4, 8, 12, 16, 32)
# PCI Express base specification: GB/s that a lane carries one way, by generation, after its line code.
LANE_GBS = {1: 0.25, 2: 0.5, 3: 0.985, 4: 1.969, 5: 3.938, 6: 7.563}
SPEED_GENERATION = {"2.5": 1, "5.0": 2, "5": 2, "8.0": 3, "16.0": 4, "32.0": 5, "64.0": 6}  # GT/s in /sys → generation


def model_words(name: str) -> tuple[str, frozenset[str]]:
    """What tells one card's name from another's: its number (H100, 5090) and its variant (Ti, Laptop)."""
    words = re.findall(r"[A-Za-z0-9]+", name.upper().replace("MOBILE", "LAPTOP"))
    digits = next((found[0] for word in words if (found := re.match(r"[A-Z]{0,2}\d{1,4}", word))), "")
    return digits, frozenset(words) & frozenset(VARIANTS)


def identity(case: Case, gate: Gate) -> Check:
    """Do name, PCI id, memory and compute capability belong together? A card of forged firmware contradicts itself."""
    smi, pci, torch = case.card["smi"], case.data("identity").get("pci") or {}, case.data("torch_build")
    name, memory, row = str(smi.get("name") or ""), smi.get("memory.total"), case.model
    measured = f"{name}, {case.pci_id or 'no PCI id'}, {memory or '?'} MiB"
    facts = {"name": name, "PCI id": case.pci_id or "?", "VBIOS": str(smi.get("vbios_version") or "?"),
             "memory": f"{memory} MiB"}
    bad: list[tuple[str, str]] = []
    said = str(smi.get("pci.device_id") or "").lower()
    if pci.get("device") and said.startswith("0x") and said[2:6] != str(pci["device"])[2:].lower():
        bad.append(("fail", f"nvidia-smi says device {said}, the PCI bus {pci['device']}"))
    if "graphics device" in name.lower():
        bad.append(("warn", "the driver doesn't know this card by name: too old a driver, or no ordinary card"))
    if smi.get("mig.mode.current") == "Enabled":
        bad.append(("warn", "MIG is on: all that follows is of one slice"))
    if row is None:
        return check(gate, worst([level for level, _ in bad] or ["warn"]), measured, NONE_ON_RECORD,
                     "; ".join([why for _, why in bad] + ["the rule table doesn't know this PCI id"]), facts=facts)
    expected = f"{row.name}, sm_{row.compute_capability.replace('.', '')}" + (
        f", {row.memory_mib} MiB" if row.memory_mib else "")
    number_, variant = model_words(name)
    if number_ and number_ not in {model_words(part)[0] for part in row.name.split(" / ")}:
        bad.append(("fail", f"it calls itself {name}, and its PCI id is that of a {row.name}"))
    elif number_ and variant != model_words(row.name)[1]:
        bad.append(("warn", f"it calls itself {name}, the table {row.name}"))
    capability = torch.get("capability")
    if capability and capability != row.compute_capability:
        bad.append(("fail", f"it computes as {capability}, a {row.name} is {row.compute_capability}"))
    if row.memory_mib and memory and abs(memory / row.memory_mib - 1) * 100 > gate["memory_off_pct"]:
        bad.append(("fail", f"it has {memory} MiB, a {row.name} {row.memory_mib}"))
    return check(gate, worst([level for level, _ in bad]), measured, expected, "; ".join(why for _, why in bad),
                 facts=facts)


def driver(case: Case, gate: Gate) -> Check:
    """New enough for the stack's CUDA on this card, and of the modules that it insists on."""
    data, cuda = case.data("driver"), case.stack.cuda if case.stack else case.data("torch_build").get("cuda")
    capability = version(case.model.compute_capability if case.model else case.card["smi"].get("compute_cap"))
    measured = f"{data['version']} {data['flavour'] or 'of unknown flavour'}, serves CUDA {data['cuda'] or '?'}"
    if data.get("emulated"):
        measured += " (EMULATED by the testbed)"
    facts = {"driver": str(data["version"]), "driver flavour": str(data["flavour"])}
    bad, wanted = [], []
    flavour = case.rules.flavour(capability)
    if flavour:
        wanted.append(f"{flavour} modules")
        if data["flavour"] and data["flavour"] != flavour:
            bad.append(f"this card needs the {flavour} kernel modules")
    try:
        floor = case.rules.least_driver(cuda, capability) if cuda else None
    except KeyError:
        floor = None
    if floor:
        wanted.insert(0, f"≥ {floor} for CUDA {cuda}")
        have, least = version(data["version"]), version(floor)
        if have is None or least is None or have < least:
            bad.append(f"too old: CUDA {cuda} on this card needs {floor}")
    return check(gate, "fail" if bad else "pass", measured, ", ".join(wanted) or NONE_ON_RECORD, "; ".join(bad),
                 facts=facts)


def kernel_log(case: Case, gate: Gate) -> Check:
    """What the kernel has said of this card since it booted, and what it said during this very test."""
    data, slot = case.data("kernel_log"), str(case.card.get("bus_id") or "").lower()[-12:].rpartition(".")[0]
    found: dict[str, tuple[str, int]] = {}
    fresh = set(data.get("new", []))
    during: dict[str, str] = {}
    for line in data["lines"]:
        named = re.findall(r"[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}", line.lower())  # a port tells of the card below it
        if named and slot and not any(one in slot or slot in one for one in named):
            continue  # it is about other devices
        for signature in case.gates.kernel_log:
            if hit := signature.says.search(line):
                words = signature.means.format(hit[0], *hit.groups())
                found[words] = (signature.level, found.get(words, ("", 0))[1] + 1)
                if line in fresh:
                    during[words] = signature.during
                break
    told = [f"{words} ({count}×)" for words, (_, count) in found.items()]
    level = worst([level for level, _ in found.values()])
    if during:
        level = worst([level, *during.values()])
        told = [f"during this test: {', '.join(sorted(during))}", *told]
    return check(gate, level, f"{len(told)} kinds of complaint" if told else "no complaint",
                 "no Xid, no AER, no failed start", "; ".join(told), source=f"{data['source']}; {gate.source}")


def pcie_errors(case: Case, gate: Gate) -> Check:
    """The errors that the kernel's AER has counted on the card's own port."""
    pci = case.data("identity").get("pci") or {}
    counts = {kind: pci.get(f"aer_{kind}") for kind in ("fatal", "nonfatal", "correctable")}
    if all(count is None for count in counts.values()):
        return check(gate, "not_run", "", "", "/sys has no AER counters for this card")
    bad = [("fail", f"{counts['fatal']} fatal")] if counts["fatal"] else []
    bad += [("warn", f"{counts['nonfatal']} non-fatal")] if counts["nonfatal"] else []
    if (counts["correctable"] or 0) > gate["correctable_warn"]:
        bad.append(("warn", f"{counts['correctable']} corrected: a bad slot, riser or cable"))
    told = ", ".join(f"{count} {kind}" for kind, count in counts.items() if count is not None)
    return check(gate, worst([level for level, _ in bad]), told,
                 f"≤ {gate['correctable_warn']:.0f} corrected, no other", ", ".join(why for _, why in bad))


def other_users(case: Case, gate: Gate) -> Check:
    """Nobody else at work on the card before we began; else every speed is of what they left."""
    data = case.data("other_users")
    if data.get("utilization") is None and data.get("memory_mib") is None and not data.get("processes"):
        return check(gate, "not_run", "", "", "nvidia-smi tells neither utilization nor memory in use")
    measured = f"{data.get('utilization') if data.get('utilization') is not None else '?'} % busy, " \
               f"{data.get('memory_mib') if data.get('memory_mib') is not None else '?'} MiB in use"
    expected = f"< {gate['utilization_pct']:.0f} % busy, < {gate['memory_mib']:.0f} MiB in use, no process"
    why = f"others use this card: {case.busy}; speeds and memory are of what they leave"
    return check(gate, "warn" if case.busy else "pass", measured, expected, why)


def link(case: Case) -> tuple[int | None, int | None, int | None, int | None]:
    """(generation, width) under load, (generation, width) at most: by nvidia-smi, and by /sys where that says more."""
    data, smi = case.data("load"), case.card["smi"]
    pci = data.get("pci") or case.data("identity").get("pci") or {}

    def most(name: str) -> int | None:
        return max((row[name] for row in data.get("samples", []) if isinstance(row.get(name), int)), default=None)

    def lanes(text: Any) -> int | None:
        return int(text) if str(text).isdigit() and int(text) in WIDTHS else None

    def speed(name: str) -> int | None:
        return SPEED_GENERATION.get(str(pci.get(name) or "").split(" ")[0])

    generation = most("pcie.link.gen.current")
    width = most("pcie.link.width.current") or lanes(pci.get("current_link_width"))
    if generation is None:
        generation = speed("current_link_speed")
    widths = [w for w in (lanes(smi.get("pcie.link.width.max")), lanes(pci.get("max_link_width"))) if w]
    most_told = smi.get("pcie.link.gen.max")  # of card and slot together
    generations = [g for g in (most_told, speed("max_link_speed")) if isinstance(g, int)]
    return generation, width, max(generations, default=None), max(widths, default=None)


def pcie(case: Case, gate: Gate) -> Check:
    """As many lanes and as new a generation as the card has, while it works (idle links fall back to save power)."""
    generation, width, best, lanes = link(case)
    if width is None and generation is None:
        return check(gate, "not_run", "", "", "neither nvidia-smi nor /sys tells the link")
    measured = f"gen {generation or '?'} ×{width or '?'}"
    expected = f"gen {best or '?'} ×{lanes or '?'}"
    bad = []
    if width and lanes and width < lanes:
        level = "fail" if width < gate["fail_width_below"] * lanes else "warn"
        bad.append((level, f"{width} of {lanes} lanes: a narrow slot, a riser, or a bad contact"))
    if generation and best and generation < best:
        bad.append(("warn", f"generation {generation} of {best}: an older slot, a riser, or a setting of the firmware"))
    return check(gate, worst([level for level, _ in bad]), measured, expected, "; ".join(why for _, why in bad),
                 facts={"PCIe": measured.replace("gen ?", "").strip()})


def power_limit(case: Case, gate: Gate) -> Check:
    """The limit in force against the card's own default."""
    limit, default = (case.card["smi"].get(name) for name in ("power.limit", "power.default_limit"))
    if limit is None or default is None:
        return check(gate, "not_run", "", "", "nvidia-smi tells no power limit")
    why = f"somebody has lowered it to {100 * limit / default:.0f} % of the default"
    return check(gate, "pass" if limit >= gate["warn_below"] * default else "warn", f"{limit:g} W",
                 f"{default:g} W, the default", why, facts={"power limit": f"{limit:g} W"})


def _samples(case: Case) -> list[Any]:
    return [row for row in case.data("load").get("samples", []) if isinstance(row, dict)]


def throttle(case: Case, gate: Gate) -> Check:
    """What held the clocks down under load."""
    rows = [row["reasons"] for row in _samples(case) if row.get("reasons") is not None]
    if not rows:
        return check(gate, "not_run", "", "", "nvidia-smi tells no reasons")
    counts = {reason: sum(reason in row for row in rows) for row in rows for reason in row}
    told = [f"{reason.replace('_', ' ')} in {count} of {len(rows)} samples" for reason, count in counts.items()]
    bad = [(case.gates.throttle[reason], text) for reason, text in zip(counts, told, strict=True)
           if reason in case.gates.throttle]
    clocks = [clock for row in _samples(case) if isinstance(clock := row.get("clocks.current.sm"), (int, float))]
    clock = sorted(clocks)[len(clocks) // 2] if clocks else None
    measured = ", ".join(told) or "nothing"
    return check(gate, worst([level for level, _ in bad]), measured + (f"; {clock} MHz" if clock else ""),
                 "no heat, no power brake, no hardware slowdown", "; ".join(text for _, text in bad),
                 numbers=number("SM clock under load", clock, "MHz"))


def temperature(case: Case, gate: Gate) -> Check:
    """The hottest sample under load, and the margin to the card's own limit where it tells one."""
    rows = [row["temperature.gpu"] for row in _samples(case) if isinstance(row.get("temperature.gpu"), (int, float))]
    if not rows:
        return check(gate, "not_run", "", "", "nvidia-smi tells no temperature")
    margins = [row["temperature.gpu.tlimit"] for row in _samples(case)
               if isinstance(row.get("temperature.gpu.tlimit"), (int, float))]
    draws = [row["power.draw"] for row in _samples(case) if isinstance(row.get("power.draw"), (int, float))]
    hottest, margin = max(rows), min(margins, default=None)
    measured = f"{hottest:g} °C" + (f", {margin:g} °C below its limit" if margin is not None else "") + (
        f", {max(draws):.0f} W" if draws else "")
    level = "fail" if hottest >= gate["fail_c"] else "warn" if hottest >= gate["warn_c"] else "pass"
    if margin is not None and margin <= gate["margin_warn_c"]:
        level = worst([level, "warn"])
    return check(gate, level, measured, f"< {gate['warn_c']:.0f} °C", "it runs hot: check fans and air",
                 numbers=(*number("temperature", hottest, "°C", "lower"),
                          *number("power under load", max(draws, default=None), "W", "neither")))


def ecc(case: Case, gate: Gate) -> Check:
    """Errors that ECC counted; a card without ECC can't tell."""
    data = case.data("ecc")
    if data.get("ecc.mode.current") != "Enabled":
        off = data.get("ecc.mode.current") == "Disabled"
        return check(gate, "warn" if off else "not_run", "off" if off else "", "on" if off else "",
                     "ECC is switched off" if off else "this card has no ECC")
    volatile, ever = (data.get(f"ecc.errors.uncorrected.{kind}.total") for kind in ("volatile", "aggregate"))
    bad = [("fail", f"{volatile} uncorrected errors since the driver started")] if volatile else []
    bad += [("warn", f"{ever} uncorrected errors in the card's life")] if ever and not volatile else []
    for name, level, words in (("remapped_rows.failure", "fail", "a row could not be remapped"),
                               ("remapped_rows.pending", "warn", "rows wait to be remapped: reset the GPU"),
                               ("retired_pages.pending", "warn", "pages wait to be retired: reboot")):
        if str(data.get(name)).lower() == "yes":
            bad.append((level, words))
    action = data.get("gpu_recovery_action")
    if action and str(action) != "None":
        bad.append(("fail", f"the driver asks for a recovery: {action}"))
    return check(gate, worst([level for level, _ in bad]), f"on; {volatile or 0} uncorrected, {ever or 0} in its life",
                 "on, none", "; ".join(why for _, why in bad))
