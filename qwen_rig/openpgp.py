"""Just enough of RFC 9580 to know an OpenPGP key by its fingerprint, so that hosts need no gpg. Pure."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator

PUBLIC_KEY = 6  # packet tag of a primary public key


def fingerprints(armored: str) -> list[str]:
    """The v4 fingerprints (40 upper-case hex digits) of all primary keys in an armored key file.

    Raises ValueError where the text is no armored key or a packet can't be read.
    """
    return [hashlib.sha1(b"\x99" + len(body).to_bytes(2, "big") + body).hexdigest().upper()
            for tag, body in _packets(_dearmor(armored)) if tag == PUBLIC_KEY]


def _dearmor(text: str) -> bytes:
    lines = [line.strip() for line in text.replace("\r", "").split("\n")]
    try:
        begin = lines.index("-----BEGIN PGP PUBLIC KEY BLOCK-----")
        end = lines.index("-----END PGP PUBLIC KEY BLOCK-----")
    except ValueError:
        raise ValueError("not an armored OpenPGP public key") from None
    block = lines[begin + 1:end]
    body = block[block.index("") + 1:] if "" in block else block  # armor headers end at the first empty line
    return base64.b64decode("".join(line for line in body if not line.startswith("=")))


def _packets(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(data):
        head = data[at]
        if not head & 0x80:
            raise ValueError("broken OpenPGP packet")
        if head & 0x40:  # new format (RFC 9580 §4.2.1)
            tag, first = head & 0x3F, data[at + 1]
            if first < 192:
                size, start = first, at + 2
            elif first < 224:
                size, start = ((first - 192) << 8) + data[at + 2] + 192, at + 3
            elif first == 255:
                size, start = int.from_bytes(data[at + 2:at + 6], "big"), at + 6
            else:
                raise ValueError("OpenPGP packet of partial length")
        else:  # old format
            tag, width = (head >> 2) & 0x0F, (1, 2, 4, 0)[head & 3]
            if not width:
                raise ValueError("OpenPGP packet of indeterminate length")
            size, start = int.from_bytes(data[at + 1:at + 1 + width], "big"), at + 1 + width
        yield tag, data[start:start + size]
        at = start + size
