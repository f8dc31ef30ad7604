"""Runs on the host or here: which GPU architectures a shared object really has code for, read from the object itself.

Usage: fatbin.py FILE.so|FILE.whl. Prints a JSON list such as ["sm_90"]; `compute_90` stands for PTX, which a driver
compiles for newer cards. No CUDA tool is needed: the section .nv_fatbin is a row of fat binaries, each a header
and its entries, and each entry names its kind and its architecture.

Layout (little-endian), as public tools read it (NVIDIA's own fatbinary headers; cricket, gdev):
  fat binary  u32 magic 0xBA55ED50 · u16 version · u16 header size · u64 size of all entries
  entry       u16 kind (1 PTX, 2 cubin) · u16 version · u32 header size · u64 payload size · … at byte 28: u32 arch
"""

import argparse
import io
import json
import struct
import sys
import zipfile

MAGIC = 0xBA55ED50
SECTIONS = (b".nv_fatbin", b"__nv_relfatbin")  # linked code, and code that was compiled to be linked later
KINDS = {1: "compute_", 2: "sm_"}
ARCH_AT, LEAST_HEADER = 28, 32


class NotRead(ValueError):
    """The file is no 64-bit little-endian ELF object, or is cut short."""


def sections(file):
    """name → (offset, size) of a 64-bit little-endian ELF file's sections that have bytes in the file."""
    head = file.read(64)
    if len(head) < 64 or head[:4] != b"\x7fELF" or head[4:6] != b"\x02\x01":
        raise NotRead("no 64-bit little-endian ELF file")
    (table_at,) = struct.unpack_from("<Q", head, 0x28)
    entry_size, count, names_at = struct.unpack_from("<HHH", head, 0x3A)
    rows = []
    for number in range(count):
        file.seek(table_at + number * entry_size)
        row = file.read(64)
        if len(row) < 64:
            raise NotRead("its section table is cut short")
        name, kind = struct.unpack_from("<II", row)
        rows.append((name, kind, *struct.unpack_from("<QQ", row, 0x18)))
    if not rows or names_at >= len(rows):
        return {}
    file.seek(rows[names_at][2])
    names = file.read(rows[names_at][3])
    no_bytes = 8  # SHT_NOBITS
    return {names[name:names.index(b"\0", name)]: (offset, size) for name, kind, offset, size in rows
            if kind != no_bytes and name < len(names)}


def archs_of_section(file, offset, size):
    """The architectures of the fat binaries that stand in a row there."""
    found, at, end = set(), offset, offset + size
    while at + 16 <= end:
        file.seek(at)
        magic, _, header, length = struct.unpack("<IHHQ", file.read(16))
        if magic != MAGIC:
            at += 8  # padding between two
            continue
        entry, last = at + header, min(at + header + length, end)
        while entry + LEAST_HEADER <= last:
            file.seek(entry)
            row = file.read(LEAST_HEADER)
            kind, _, entry_header, payload = struct.unpack_from("<HHIQ", row)
            if entry_header < LEAST_HEADER:
                raise NotRead(f"an entry of its fat binary has a header of {entry_header} bytes")
            (arch,) = struct.unpack_from("<I", row, ARCH_AT)
            found.add(f"{KINDS.get(kind, f'kind {kind} for ')}{arch}")
            entry += entry_header + payload
        at = last
    return found


def ordered(found):
    """By kind, then by number: sm_90 before sm_100."""
    return sorted(found, key=lambda arch: (arch.partition("_")[0], int(arch.rpartition("_")[2].split()[-1])))


def archs(file):
    """The architectures of a shared object (a path, or a binary file), in order. Raises NotRead, OSError."""
    if not hasattr(file, "read"):
        with open(file, "rb") as opened:
            return archs(opened)
    found = set()
    try:
        for name, (offset, size) in sections(file).items():
            if name in SECTIONS:
                found |= archs_of_section(file, offset, size)
    except struct.error as error:
        raise NotRead(f"cut short: {error}") from None
    return ordered(found)


def archs_of_wheel(path):
    """The architectures of all shared objects in a wheel, in order; [] where it holds no CUDA code. Raises as archs."""
    found = set()
    with zipfile.ZipFile(path) as wheel:
        for name in wheel.namelist():
            if name.endswith(".so") or ".so." in name.rpartition("/")[2]:
                found.update(archs(io.BytesIO(wheel.read(name))))
    return ordered(found)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file")
    asked = parser.parse_args().file
    try:
        print(json.dumps(archs_of_wheel(asked) if asked.endswith(".whl") else archs(asked)))
    except (OSError, NotRead, zipfile.BadZipFile) as why:
        sys.exit(f"{asked}: {why}")
