"""A keyring for apt that holds one OpenPGP key and nothing else, written by us out of what was read. Pure.

apt's verifiers believe every key that lies in a keyring: gpgv asks for no signature that binds a subkey to its primary,
and each verifier reads armor and packets more or less generously than the next. So the file that was fetched never
reaches apt. What does is encoded anew: the packet whose fingerprint is the pin, its names and its own signatures.
Subkeys are left out, as the pin doesn't cover them (RFC 9580 §5.5.4: a fingerprint is of one key packet).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterator

BEGIN, END = "-----BEGIN PGP PUBLIC KEY BLOCK-----", "-----END PGP PUBLIC KEY BLOCK-----"
SIGNATURE, PUBLIC_KEY, USER_ID, PUBLIC_SUBKEY, USER_ATTRIBUTE = 2, 6, 13, 14, 17  # packet tags
OF_A_NAME, OF_THE_KEY = (0x10, 0x11, 0x12, 0x13), (0x1F, 0x20)  # signatures: certifications; direct, revocation
ISSUER, ISSUER_FINGERPRINT = 16, 33  # subpackets
LINE = 64
AT_MOST = 1 << 20  # bytes; NVIDIA's keys have two thousand


def keyring(armored: str, fingerprint: str) -> str:
    """An armored keyring of the key with that fingerprint (40 upper-case hex digits) alone.

    Raises ValueError, which says what is wrong, where the text is anything but one armored certificate of that key.
    """
    packets = list(_packets(_dearmor(armored)))
    keys = [_fingerprint(body) for tag, body in packets if tag == PUBLIC_KEY]
    if keys != [fingerprint]:
        raise ValueError(f"it holds {', '.join(keys) or 'no key'}, expected {fingerprint} alone")
    if packets[0][0] != PUBLIC_KEY:
        raise ValueError("the key isn't the first packet")
    return _armor(b"".join(_packet(tag, body) for tag, body in _own(packets, fingerprint)))


def _own(packets: list[tuple[int, bytes]], fingerprint: str) -> Iterator[tuple[int, bytes]]:
    """The key, its names, and the signatures that the key itself made on either."""
    about: int | None = None  # the tag of what the signatures that follow are about; None: of what is left out
    for tag, body in packets:
        if tag != SIGNATURE:
            about = tag if tag in (PUBLIC_KEY, USER_ID) else None
            if about is not None:
                yield tag, body
        elif about is not None and _signed_by(body, fingerprint, OF_THE_KEY if about == PUBLIC_KEY else OF_A_NAME):
            yield tag, body


def _fingerprint(body: bytes) -> str:
    if body[:1] != b"\x04":
        raise ValueError(f"a key of version {body[0] if body else 'none'}: only version 4 is known")
    return hashlib.sha1(b"\x99" + len(body).to_bytes(2, "big") + body).hexdigest().upper()


def _signed_by(body: bytes, fingerprint: str, kinds: tuple[int, ...]) -> bool:
    """Whether a signature packet is of one of these types and says that this key made it."""
    if len(body) < 6 or body[0] != 4 or body[1] not in kinds:
        return False
    size = int.from_bytes(body[4:6], "big")
    start = 6 + size
    more = int.from_bytes(body[start:start + 2], "big")
    issuers = set()
    for area in (body[6:start], body[start + 2:start + 2 + more]):
        for kind, value in _subpackets(area):
            if kind == ISSUER:
                issuers.add(value.hex().upper())
            elif kind == ISSUER_FINGERPRINT and value[:1] == b"\x04":
                issuers.add(value[1:].hex().upper()[-16:])
    return issuers == {fingerprint[-16:]}


def _subpackets(area: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(area):
        size, at = _length(area, at)
        if not size or at + size > len(area):
            raise ValueError("a signature's subpacket is cut off")
        yield area[at] & 0x7F, area[at + 1:at + size]
        at += size


def _dearmor(text: str) -> bytes:
    """The bytes of the only armored block of a text that holds nothing else, in the strict form (RFC 9580 §6.2)."""
    if len(text) > AT_MOST:
        raise ValueError("too long for a key")
    lines = [line.rstrip(" \t") for line in text.replace("\r\n", "\n").strip().split("\n")]
    if lines[0] != BEGIN or lines[-1] != END or len(lines) < 3:
        raise ValueError("not an armored OpenPGP public key, or not that alone")
    block = lines[1:-1]
    while block and re.fullmatch(r"[A-Za-z][A-Za-z0-9-]*: [\x20-\x7E]*", block[0]):
        block.pop(0)
    if not block or block.pop(0):
        raise ValueError("no empty line between the armor's headers and the key")
    check = block.pop() if block and block[-1].startswith("=") else None
    if not all(re.fullmatch(r"[A-Za-z0-9+/]{1,76}", line) for line in block[:-1]):
        raise ValueError("a line in the key's armor isn't base64")
    try:
        data = base64.b64decode("".join(block), validate=True)
        wanted = None if check is None else base64.b64decode(check[1:], validate=True)
    except binascii.Error:
        raise ValueError("the key's armor isn't base64") from None
    if wanted is not None and wanted != _crc24(data):
        raise ValueError("the armor's checksum is wrong")
    return data


def _packets(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Tag and body of each packet. ValueError where one doesn't belong in a certificate, or its length isn't plain."""
    at = 0
    while at < len(data):
        head = data[at]
        if not head & 0x80:
            raise ValueError("broken OpenPGP packet")
        if head & 0x40:  # new format (RFC 9580 §4.2.1)
            tag = head & 0x3F
            size, start = _length(data, at + 1)
        else:  # old format
            tag, width = (head >> 2) & 0x0F, (1, 2, 4, 0)[head & 3]
            if not width:
                raise ValueError("OpenPGP packet of indeterminate length")
            size, start = int.from_bytes(data[at + 1:at + 1 + width], "big"), at + 1 + width
        if start + size > len(data):
            raise ValueError("an OpenPGP packet is cut off")
        if tag not in (SIGNATURE, PUBLIC_KEY, USER_ID, PUBLIC_SUBKEY, USER_ATTRIBUTE):
            raise ValueError(f"an OpenPGP packet with tag {tag}, which has no place in a public key")
        yield tag, data[start:start + size]
        at = start + size


def _length(data: bytes, at: int) -> tuple[int, int]:
    """(a length in the new format, where what it measures begins)."""
    first = data[at] if at < len(data) else 0
    if first < 192:
        return first, at + 1
    if first < 224:
        return ((first - 192) << 8) + int.from_bytes(data[at + 1:at + 2], "big") + 192, at + 2
    if first == 255:
        return int.from_bytes(data[at + 1:at + 5], "big"), at + 5
    raise ValueError("OpenPGP packet of partial length")


def _packet(tag: int, body: bytes) -> bytes:
    return bytes([0xC0 | tag, 0xFF]) + len(body).to_bytes(4, "big") + body


def _armor(data: bytes) -> str:
    text = base64.b64encode(data).decode()
    lines = [text[at:at + LINE] for at in range(0, len(text), LINE)]
    return "\n".join([BEGIN, "", *lines, "=" + base64.b64encode(_crc24(data)).decode(), END, ""])


def _crc24(data: bytes) -> bytes:
    """RFC 9580 §6.1."""
    crc = 0xB704CE
    for byte in data:
        crc ^= byte << 16
        for _ in range(8):
            crc = crc << 1 ^ (0x1864CFB if crc & 0x800000 else 0)
    return (crc & 0xFFFFFF).to_bytes(3, "big")
