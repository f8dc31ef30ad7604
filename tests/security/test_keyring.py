"""What apt trusts is the key that is pinned, whatever a mirror serves in its place: asked of gpg and of apt itself."""

from __future__ import annotations

import base64
import hashlib
import shutil
import subprocess
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from qwen_rig import openpgp
from qwen_rig.catalog.datafile import DATA
from qwen_rig.catalog.sources import load_sources
from qwen_rig.openpgp import BEGIN, END

pytestmark = pytest.mark.skipif(not (shutil.which("gpg") and shutil.which("apt-get")), reason="needs gpg and apt")
MARKER = b"\xca\x03PGP"


@dataclass(frozen=True)
class Key:
    """A key of gpg's: its home, fingerprint, exported packets (public and secret)."""

    home: Path
    fingerprint: str
    public: bytes
    secret: bytes

    @property
    def first(self) -> bytes:
        """The body of the primary key's packet."""
        return body(self.public, 0)


def gpg(home: Path, *words: str, given: bytes = b"") -> bytes:
    command = ["gpg", "--homedir", str(home), "--batch", "--quiet", "--yes", "--pinentry-mode", "loopback",
               "--passphrase", "", *words]
    return subprocess.run(command, input=given, check=True, capture_output=True).stdout


def key(home: Path, subkey: bool = False) -> Key:
    home.mkdir(mode=0o700)
    gpg(home, "--quick-generate-key", f"{home.name} <{home.name}@rig.test>", "rsa2048", "sign", "never")
    listed = gpg(home, "--with-colons", "--list-keys").decode()
    fingerprint = next(line.split(":")[9] for line in listed.splitlines() if line.startswith("fpr"))
    if subkey:
        gpg(home, "--quick-add-key", fingerprint, "rsa2048", "encr", "never")
    return Key(home, fingerprint, gpg(home, "--export"), gpg(home, "--export-secret-keys"))


@dataclass(frozen=True)
class Place:
    """Three keys (`pinned`, a stranger's, and one that has a subkey), and apt with a state of its own."""

    root: Path
    pinned: Key
    other: Key
    double: Key

    def accepts(self, keyring: str, signer: Key) -> bool:
        """Whether apt, with that keyring, takes a repository that this key alone has signed."""
        repo, state = self.root / f"repo-{signer.home.name}", self.root / "state"
        shutil.rmtree(state, ignore_errors=True)
        for folder in ("lists/partial", "cache/archives/partial", "parts"):
            (state / folder).mkdir(parents=True)
        path = state / "key.asc"
        path.write_text(keyring)
        (state / "parts" / "x.sources").write_text(f"Types: deb\nURIs: file:{repo}\nSuites: /\nSigned-By: {path}\n")
        options = {"Dir::Etc::SourceList": "/dev/null", "Dir::Etc::SourceParts": state / "parts",
                   "Dir::State::Lists": state / "lists", "Dir::Cache": state / "cache",
                   "APT::Sandbox::User": "root", "APT::Update::Error-Mode": "any"}
        words = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
        return subprocess.run(["apt-get", *words, "update"], capture_output=True).returncode == 0

    def listed(self, keyring: str) -> list[str]:
        """The fingerprints of all keys, subkeys too, that gpg finds in a keyring."""
        said = gpg(self.pinned.home, "--show-keys", "--with-colons", given=keyring.encode()).decode()
        return [line.split(":")[9] for line in said.splitlines() if line.startswith("fpr")]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    root = tmp_path_factory.mktemp("k")
    root.chmod(0o755)
    made = Place(root, key(root / "a"), key(root / "b"), key(root / "c", subkey=True))
    empty = hashlib.sha256(b"").hexdigest()
    for signer in (made.pinned, made.other, made.double):
        repo = root / f"repo-{signer.home.name}"
        repo.mkdir()
        (repo / "Packages").touch()
        release = f"Origin: x\nDate: Sat, 28 Nov 2026 00:00:00 UTC\nSHA256:\n {empty} 0 Packages\n"
        (repo / "InRelease").write_bytes(gpg(signer.home, "--clearsign", given=release.encode()))
    yield made
    for signer in (made.pinned, made.other, made.double):
        subprocess.run(["gpgconf", "--homedir", str(signer.home), "--kill", "all"], check=False)


def armor(data: bytes, head: str = "", tail: str = "") -> str:
    lines = "\n".join(textwrap.wrap(base64.b64encode(data).decode(), 64))
    return f"{BEGIN}\n{head}\n{lines}\n{tail}{END}\n"


def packet(tag: int, content: bytes) -> bytes:
    return bytes([0xC0 | tag, 0xFF]) + len(content).to_bytes(4, "big") + content


def body(data: bytes, which: int) -> bytes:
    return list(openpgp._packets(data))[which][1]


def partial(tag: int, content: bytes) -> bytes:
    """A packet whose first 512 bytes are a piece of partial length (RFC 9580 §4.2.1.4)."""
    rest = content[512:]
    return bytes([0xC0 | tag, 0xE0 | 9]) + content[:512] + b"\xff" + len(rest).to_bytes(4, "big") + rest


def compressed(data: bytes) -> bytes:
    return packet(8, b"\x00" + data)  # algorithm 0: uncompressed


def crafted(place: Place) -> dict[str, str]:
    """Files that a mirror might serve for the pinned key, each to have apt trust the other key as well."""
    a, b = place.pinned, place.other
    fingerprint, secret = a.fingerprint, place.other.secret
    assert len(fingerprint) == 40
    padded = a.public
    while len(padded) % 3 == 0:
        padded += MARKER
    texts = {name: armor(a.public, head) for name, head in {
        "plain": "", "headers": "Version: GnuPG v2.0.22\nComment: x y\n"}.items()}
    one, two = armor(a.public), armor(b.public)
    lines = lambda data: "\n".join(textwrap.wrap(base64.b64encode(data).decode(), 64))  # noqa: E731
    return texts | {
        "crlf": one.replace("\n", "\r\n"), "cr alone": one.replace("\n", "\r"),
        "blank lines around": f"\n\n{one}\n", "two blocks": one + two, "two blocks, the other first": two + one,
        "padding in the middle": f"{BEGIN}\n\n{lines(padded)}\n{lines(b.public)}\n{END}\n",
        "a checksum in the middle": f"{BEGIN}\n\n{lines(a.public)}\n=AAAA\n{lines(b.public)}\n{END}\n",
        "an empty line in the middle": f"{BEGIN}\n\n{lines(a.public)}\n\n{lines(b.public)}\n{END}\n",
        "nested": f"{BEGIN}\n\n{two}{lines(a.public)}\n{END}\n", "nested in the headers": armor(a.public, two),
        "no end": one.replace(END, ""), "no begin": one.replace(BEGIN, ""), "text before": f"x\n{one}",
        "text after": f"{one}x\n", "a block in a line before": f"{two.replace(chr(10), ' ')}\n{one}",
        "dash-escaped": "\n".join(f"- {line}" if line.startswith("-") else line for line in one.splitlines()),
        "another kind of block": one.replace("PUBLIC KEY BLOCK", "MESSAGE"),
        "other dashes": one + two.replace("-----BEGIN", "----- BEGIN"),
        "wrong checksum": armor(a.public, tail="=AAAA\n"), "no key": armor(b""), "not base64": armor(a.public, "\n*"),
        "two certificates": armor(a.public + b.public), "two, the other first": armor(b.public + a.public),
        "the other alone": two, "a foreign subkey": armor(a.public + packet(14, b.first)),
        "a foreign subkey before": armor(packet(14, b.first) + a.public),
        "a foreign subkey with signatures": armor(a.public + packet(14, b.first) + packet(2, body(a.public, 2))),
        "the other's names and signatures": armor(a.public + b"".join(
            packet(tag, content) for tag, content in list(openpgp._packets(b.public))[1:])),
        "a secret key": armor(a.public + secret), "a secret key first": armor(secret + a.public),
        "a secret subkey": armor(a.public + packet(7, b.first)),
        **{f"a key of version {n}": armor(a.public + packet(6, bytes([n]) + b.first[1:])) for n in (0, 2, 3, 5, 6)},
        **{f"a subkey of version {n}": armor(a.public + packet(14, bytes([n]) + b.first[1:])) for n in (3, 5, 6)},
        "compressed": armor(a.public + compressed(b.public)), "compressed whole": armor(compressed(a.public)),
        "a marker": armor(a.public + MARKER + b.public), "a marker first": armor(MARKER + a.public),
        "trailing bytes": armor(a.public + b"\x00\x00"), "cut off": armor(a.public[:-3]),
        "a length beyond the end": armor(a.public + b"\xc6\xff\xff\xff\xff\xff" + b.first),
        "a partial length": armor(a.public + partial(6, b.first)),
        "no length": armor(a.public + bytes([0x80 | 6 << 2 | 3]) + b.first),
        "a trust packet": armor(a.public + packet(12, b"\x3c\x06") + b.public),
        "literal data": armor(a.public + packet(11, b"b\x00\x00\x00\x00\x00" + b.public)),
        "an attribute that holds a key": armor(a.public + packet(17, b.public)),
        "a name that holds a key": armor(a.public + packet(13, two.encode())),
        "an unknown packet": armor(a.public + packet(60, b.public)),
        "a signature that holds a key": armor(a.public + packet(2, b.public)),
        "the key twice": armor(a.public + a.public), "no binary file": a.public.decode("latin-1"),
        "a page": "<html>404 Not Found</html>", "nothing": "", "too long": armor(a.public + packet(13, bytes(1 << 20))),
    }


SOUND = ("plain", "headers", "crlf", "blank lines around", "a foreign subkey", "a foreign subkey with signatures",
         "an attribute that holds a key", "a name that holds a key", "a signature that holds a key",
         "the other's names and signatures", *(f"a subkey of version {n}" for n in (3, 5, 6)))


def test_apt_trusts_the_pinned_key_alone_or_nothing_is_written(place: Place) -> None:
    pin, wrong, written = place.pinned.fingerprint, [], []
    for name, text in crafted(place).items():
        try:
            made = openpgp.keyring(text, pin)
        except ValueError as error:
            assert str(error) and "\n" not in str(error), name
            continue
        written.append(name)
        if place.listed(made) != [pin] or place.accepts(made, place.other) or not place.accepts(made, place.pinned):
            wrong.append(name)
    assert not wrong and set(written) == set(SOUND)
    # That apt can tell the two apart at all, and that it believes what lies in a file:
    assert place.accepts(armor(place.other.public), place.other)


def test_a_subkey_is_left_out_as_the_pin_does_not_name_it(place: Place) -> None:
    made = openpgp.keyring(armor(place.double.public), place.double.fingerprint)
    assert len(place.listed(armor(place.double.public))) == 2 and place.listed(made) == [place.double.fingerprint]
    assert place.accepts(made, place.double)


def test_nvidias_own_keys_are_data_with_the_fingerprints_that_are_pinned(place: Place) -> None:
    source = load_sources().nvidia_apt
    pins = {row.fingerprint for row in source.keys.values()}
    assert {path.stem for path in (DATA / "keys").iterdir()} == pins
    for pin in pins:
        text = source.keyring(pin)
        assert text is not None and openpgp.keyring(text, pin) == text and place.listed(text) == [pin]
    assert source.keyring(place.pinned.fingerprint) is None
