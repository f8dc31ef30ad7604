"""An EMULATED kernel module file: valid ELF with a .modinfo section and no code, so that the real modinfo and depmod
read version and licence from it. No kernel would load it; a host's boot reads the same section instead."""

from __future__ import annotations

import struct

from ._shell import EMULATED

LICENCES = {"open": "Dual MIT/GPL", "proprietary": "NVIDIA"}  # what `modinfo nvidia` says of either
_SECTION = struct.Struct("<IIQQQQIIQQ")
_PROGBITS, _SYMTAB, _STRTAB = 1, 2, 3


def module(version: str, flavour: str) -> bytes:
    """The bytes of nvidia.ko, x86-64 relocatable (ELF-64 object file format, elf(5))."""
    fields = {"license": LICENCES[flavour], "version": version, "description": EMULATED, "name": "nvidia",
              "alias": "pci:v000010DEd*sv*sd*bc03sc00i00*"}
    info = b"".join(f"{key}={value}\0".encode() for key, value in fields.items())
    names = b"\0.modinfo\0.symtab\0.strtab\0.shstrtab\0"
    parts = [(b".modinfo", _PROGBITS, info, 0, 0), (b".symtab", _SYMTAB, bytes(24), 3, 24),
             (b".strtab", _STRTAB, b"\0", 0, 0), (b".shstrtab", _STRTAB, names, 0, 0)]
    body, table = b"", _SECTION.pack(0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
    for name, kind, data, link, entry in parts:
        flags, local = (2 if kind == _PROGBITS else 0), (1 if kind == _SYMTAB else 0)
        at = names.index(name + b"\0")
        table += _SECTION.pack(at, kind, flags, 0, 64 + len(body), len(data), link, local, 8, entry)
        body += data + bytes(-len(data) % 8)
    header = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01", 1, 62, 1, 0, 0, 64 + len(body), 0, 64, 0, 0,
                         _SECTION.size, len(parts) + 1, len(parts))
    return header + body + table
