"""TLS for what is served to a host: a certificate of the run's own, and a stream over a channel that is no socket.

Whoever else listens on the port that the host's programs were given has no such certificate: they refuse to speak to
it, and never say the run's token there.
"""

from __future__ import annotations

import datetime
import io
import ssl
import tempfile
import time
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Any, TypeVar

from qwen_rig.frozen import frozen

ADDRESS = "127.0.0.1"
DAYS = (3, 60)  # before and after now: a host's clock may be off, and a run may wait for a long build
PIECE = 1 << 16
T = TypeVar("T")


@frozen
class Identity:
    """Who serves: the context with its key, and the authority (PEM) that its clients trust, and trust alone."""

    context: ssl.SSLContext
    authority: str


def identity() -> Identity:
    """A new one, whose keys are in this process alone."""
    from cryptography import x509  # here: a run without a bundle needs none of it
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    now = datetime.datetime.now(datetime.timezone.utc)
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
    names = [x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)]) for text in ("qwen-rig run", "qwen-rig bundle")]

    def signed(which: int, *extensions: tuple[x509.ExtensionType, bool]) -> x509.Certificate:
        made = x509.CertificateBuilder().subject_name(names[which]).issuer_name(names[0]) \
            .public_key(keys[which].public_key()).serial_number(x509.random_serial_number()) \
            .not_valid_before(now - datetime.timedelta(days=DAYS[0])) \
            .not_valid_after(now + datetime.timedelta(days=DAYS[1]))
        for extension, critical in extensions:
            made = made.add_extension(extension, critical)
        return made.sign(keys[0], hashes.SHA256())

    def usage(sign: bool) -> x509.KeyUsage:
        return x509.KeyUsage(digital_signature=not sign, key_cert_sign=sign, crl_sign=False, content_commitment=False,
                             key_encipherment=False, data_encipherment=False, key_agreement=False, encipher_only=False,
                             decipher_only=False)

    subject_id = x509.SubjectKeyIdentifier.from_public_key(keys[0].public_key())
    authority = signed(0, (x509.BasicConstraints(True, 0), True), (usage(True), True), (subject_id, False))
    leaf = signed(1, (x509.BasicConstraints(False, None), True), (usage(False), True),
                  (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False),
                  (x509.SubjectAlternativeName([x509.IPAddress(ip_address(ADDRESS))]), False),
                  (x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(subject_id), False))
    key = keys[1].private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                                serialization.NoEncryption())
    pem = serialization.Encoding.PEM
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    with tempfile.TemporaryDirectory() as folder:  # 0700; ssl reads keys from files alone
        (Path(folder) / "pem").write_bytes(key + leaf.public_bytes(pem))
        context.load_cert_chain(Path(folder) / "pem")
    return Identity(context, authority.public_bytes(pem).decode())


class Stream(io.RawIOBase):
    """The server's side of TLS over a channel of SSH, or any socket, as http.server takes its connections.

    Raises OSError (and EOFError out of the channel) where the other side breaks off, or takes longer than it may.
    """

    def __init__(self, channel: Any, context: ssl.SSLContext, begin_s: float) -> None:
        self._channel, self._end = channel, time.monotonic() + begin_s
        self._idle: float | None = None
        self._coming, self._going = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._coming, self._going, server_side=True)
        self._step(self._tls.do_handshake)

    def trusted(self, idle_s: float) -> None:
        """The other side has said who it is: from now on it may be silent this long, as often as it likes."""
        self._idle = idle_s

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            found = self._step(lambda: self._tls.read(len(buffer)))
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            return 0
        buffer[:len(found)] = found
        return len(found)

    def sendall(self, data: Any) -> None:
        """The whole answer, or an OSError."""
        view = memoryview(data)
        for start in range(0, len(view), PIECE):
            piece = view[start:start + PIECE]
            while len(piece):
                piece = piece[self._step(lambda piece=piece: self._tls.write(piece)):]  # type: ignore[misc]

    def makefile(self, mode: str = "rb", buffering: int = -1) -> io.BufferedReader:
        """What http.server reads from; it writes by sendall."""
        return io.BufferedReader(self, PIECE)

    def settimeout(self, seconds: float | None) -> None:
        """Nothing: begin_s and trusted() say how long."""

    def _step(self, act: Callable[[], T]) -> T:
        """Do it, with as much coming and going as that takes."""
        while True:
            try:
                done = act()
                self._flush()
                return done
            except ssl.SSLWantReadError:
                self._flush()
                self._take()

    def _take(self) -> None:
        left = self._idle if self._idle is not None else self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError("it took too long to say who it is")
        self._channel.settimeout(left)
        if found := self._channel.recv(PIECE):
            self._coming.write(found)
        else:
            self._coming.write_eof()

    def _flush(self) -> None:
        if self._going.pending:
            self._channel.settimeout(self._idle or max(1.0, self._end - time.monotonic()))
            self._channel.sendall(self._going.read())
