"""A shared object with fat binaries in it, synthesized: as an nvcc would lay them out, with no code in them."""

from __future__ import annotations

import struct

PTX, CUBIN = 1, 2


def fatbin(*entries: tuple[int, int]) -> bytes:
    """One fat binary with an entry for each (kind, architecture)."""
    rows = b""
    for kind, arch in entries:
        payload = bytes([kind]) * 24
        header = struct.pack("<HHIQIIHHI", kind, 0x101, 64, len(payload), 0, 0, 0, 0, arch)
        rows += header.ljust(64, b"\0") + payload
    return struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(rows)) + rows


def elf(section: bytes, content: bytes) -> bytes:
    """A 64-bit little-endian ELF file with that section."""
    names = b"\0" + section + b"\0.shstrtab\0"
    table_at = 64 + len(content) + len(names)
    head = b"\x7fELF\x02\x01\x01".ljust(16, b"\0") + struct.pack(
        "<HHIQQQIHHHHHH", 3, 62, 1, 0, 0, table_at, 0, 64, 0, 0, 64, 3, 2)

    def row(name: int, kind: int, at: int, size: int) -> bytes:
        return struct.pack("<IIQQQQIIQQ", name, kind, 0, 0, at, size, 0, 0, 1, 0)

    return (head + content + names + bytes(64) + row(1, 1, 64, len(content))
            + row(2 + len(section), 3, 64 + len(content), len(names)))
