"""A host's key by its name: kept at first use, refused when it changes, accepted on command. Real sshd, real keys."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import paramiko
import pytest

from qwen_rig import cli
from qwen_rig.errors import RigError
from qwen_rig.hostkeys import OFFERS, HostKeyError, KnownHosts, fingerprint, sha256
from testbed.bed import Testbed
from testbed.spec import HostSpec
from tests import instance

from .conftest import Ran


@pytest.fixture(scope="module")
def bed() -> Iterator[Testbed]:
    if os.getuid() != 0 or sys.platform != "linux":
        pytest.skip("the testbed needs root on Linux")
    with Testbed(instance("host-keys")) as made:
        made.up([HostSpec("one"), HostSpec("two")])
        yield made


@pytest.fixture
def lab(bed: Testbed, tmp_path: Path) -> Callable[..., dict[str, str]]:
    """A lab.yml with one host: which machine it is, and under which name its key is kept."""

    def write(machine: str, alias: str, more: str = "") -> dict[str, str]:
        host = bed.host(machine)
        (tmp_path / "lab.yml").write_text(
            f"hosts:\n  rented:\n    address: {host.address}\n    user: {host.user}\n    key: {host.key}\n"
            f"    known_hosts: kept\n    host_key_alias: {alias}\n{more}")
        return {"LAB_HOSTS": f"{tmp_path}/lab.yml"}

    return write


def new_key(bed: Testbed, machine: str) -> str:
    """Give a machine another host key, as a re-created instance has; returns its fingerprint."""
    bed.exec_(machine, ["sh", "-c", "cd /etc/ssh && rm ssh_host_ed25519_key* && "
                        "ssh-keygen -q -t ed25519 -N '' -f ssh_host_ed25519_key"], check=True)
    return str(bed.exec_(machine, ["ssh-keygen", "-lf", "/etc/ssh/ssh_host_ed25519_key"], check=True).stdout.split()[1])


@pytest.mark.testbed
def test_first_use_change_and_acceptance(bed: Testbed, lab: Callable[..., dict[str, str]], tmp_path: Path,
                                         pyinfra: Callable[..., Ran], capsys: pytest.CaptureFixture[str]) -> None:
    run = ("-y", "inventories/lab.py", "exec", "--", "true")
    first = pyinfra(*run, **lab("one", "vast-1"))
    assert first.code == 0 and "vast-1: first use, host key SHA256:" in first.err, first.err
    kept = (tmp_path / "kept").read_text()
    assert kept.startswith("vast-1 ssh-ed25519 ") and len(kept.splitlines()) == 1
    again = pyinfra(*run, **lab("one", "vast-1"))
    assert again.code == 0 and "host key" not in again.err, again.err

    offered = new_key(bed, "one")
    execs = bed.execs("one")
    refused = pyinfra(*run, **lab("one", "vast-1"))
    said = " ".join(refused.err.split())
    assert refused.code == 1 and "Traceback" not in said
    accept = ["host-keys", "accept", "vast-1", offered, "--file", f"{tmp_path}/kept"]
    assert "host key of vast-1 has changed" in said and offered in said
    assert f"qwen-rig {' '.join(accept)}" in refused.err.replace("\n", "")
    assert bed.execs("one") == execs and (tmp_path / "kept").read_text() == kept

    # Another instance, now at the same address with that key: no conflict.
    other = pyinfra(*run, **lab("one", "vast-2"))
    assert other.code == 0 and "vast-2: first use" in other.err, other.err

    assert cli.main(accept) == 0 and offered in capsys.readouterr().out
    accepted = pyinfra(*run, **lab("one", "vast-1"))
    assert accepted.code == 0 and bed.execs("one") == execs + 2, accepted.err
    # The same instance at another address, with a key that isn't its own.
    moved = pyinfra(*run, **lab("two", "vast-1"))
    assert moved.code == 1 and "host key of vast-1 has changed" in " ".join(moved.err.split()), moved.err


@pytest.mark.testbed
def test_strict_refuses_what_it_does_not_know(bed: Testbed, lab: Callable[..., dict[str, str]], tmp_path: Path,
                                              pyinfra: Callable[..., Ran]) -> None:
    run = ("-y", "inventories/lab.py", "exec", "--", "true")
    where = lab("two", "vast-3", "    host_keys: strict\n")
    refused = pyinfra(*run, **where)
    assert refused.code == 1 and "host key of vast-3 isn't known yet" in " ".join(refused.err.split()), refused.err
    offered, = KnownHosts(tmp_path / "kept").refused_fingerprints("vast-3")
    assert cli.main(["host-keys", "accept", "vast-3", offered, "--file", f"{tmp_path}/kept"]) == 0
    assert pyinfra(*run, **where).code == 0
    # OpenSSH reads the same file.
    argv = bed.ssh_argv("two")
    for option in ("StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null"):
        at = argv.index(option)
        argv[at - 1:at + 1] = []
    argv[1:1] = ["-o", "StrictHostKeyChecking=yes", "-o", f"UserKnownHostsFile={tmp_path}/kept",
                 "-o", "HostKeyAlias=vast-3"]
    assert subprocess.run([*argv, "true"], stdin=subprocess.DEVNULL, check=False).returncode == 0


def key(bits: int = 1024) -> paramiko.PKey:
    return paramiko.RSAKey.generate(bits)


def test_the_file(tmp_path: Path) -> None:
    kept, (a, b, c) = KnownHosts(tmp_path / "kept"), (key(), key(), key())
    kept.path.write_text("# für mich\n@revoked * ssh-rsa AAAA\nnonsense line here\n"  # no UTF-8, and
                         f"gw,10.0.0.1 ssh-rsa {a.get_base64()}", encoding="latin-1")  # no newline at its end
    kept.check("vast-1", b, strict=False)
    kept.check("gw", a, strict=True)
    with pytest.raises(HostKeyError, match="has changed"):
        kept.check("gw", c, strict=False)
    assert kept.accept("gw", sha256(c)) == fingerprint(c)
    text = kept.path.read_text(encoding="latin-1")
    assert text.startswith("# für mich\n@revoked * ssh-rsa AAAA\nnonsense line here\n10.0.0.1 ssh-rsa ")
    assert [name for name, _, _ in kept.all()] == ["10.0.0.1", "vast-1", "gw"]
    assert kept.path.stat().st_mode & 0o777 == 0o600
    kept.check("gw", c, strict=True)
    with pytest.raises(RigError, match="no host key of gw was refused"):
        kept.accept("gw", sha256(c))
    assert kept.forget("vast-1") == 1 and kept.keys("vast-1") == []


def test_a_hashed_name_is_found(tmp_path: Path) -> None:
    kept, a = KnownHosts(tmp_path / "kept"), key()
    kept.path.write_text(f"{paramiko.HostKeys.hash_host('vast-1')} ssh-rsa {a.get_base64()}\n")
    kept.check("vast-1", a, strict=True)


@pytest.mark.parametrize(("arguments", "said"), [
    (["accept"], "takes the name of one machine"),
    (["accept", "a;b"], "takes the name of one machine"),
    (["accept", "vast-9"], "takes the fingerprint of the key, SHA256:…, as the refusal showed it"),
    (["accept", "vast-9", "SHA256:short"], "takes the fingerprint of the key"),
    (["accept", "vast-9", f"SHA256:{'a' * 43}"], "no host key of vast-9 was refused"),
    (["forget", "vast-9", f"SHA256:{'a' * 43}"], "forget takes the name of one machine"),
    (["forget", "vast-9"], "no host key of vast-9 is kept"),
])
def test_bad_words(arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["host-keys", *arguments, "--file", f"{tmp_path}/kept"]) == 1
    told = capsys.readouterr().err
    assert said in told and len(told.splitlines()) == 1


def test_another_key_offered_in_between_is_not_accepted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What the user has compared is what is kept: neither the last key that was refused, nor one that never was."""
    kept, (old, seen, between) = KnownHosts(tmp_path / "kept"), (key(), key(), key())
    kept.check("vast-1", old, strict=False)
    told = []
    for offered in (seen, between):
        with pytest.raises(HostKeyError) as refused:
            kept.check("vast-1", offered, strict=False)
        told.append(shlex.split(str(refused.value).partition("to accept it: qwen-rig ")[2]))
    before = kept.path.read_bytes()
    assert cli.main(["host-keys", "accept", "vast-1", sha256(key()), "--file", str(kept.path)]) == 1
    said = capsys.readouterr().err
    assert sha256(seen) in said and sha256(between) in said and kept.path.read_bytes() == before
    assert cli.main(["host-keys", "accept", "vast-1", "--file", str(kept.path)]) == 1, "which one is meant?"
    assert kept.path.read_bytes() == before
    assert cli.main(told[0]) == 0, "the command of the first refusal, as it was shown"
    assert kept.keys("vast-1") == [seen]
    with pytest.raises(HostKeyError, match="has changed"):
        kept.check("vast-1", between, strict=False)


def test_who_offers_many_keys_makes_the_right_one_be_shown_again(tmp_path: Path) -> None:
    kept, seen = KnownHosts(tmp_path / "kept"), key()
    kept.check("vast-1", key(), strict=False)
    for offered in (seen, *(key() for _ in range(OFFERS))):
        with pytest.raises(HostKeyError):
            kept.check("vast-1", offered, strict=False)
    assert len(kept.refused_fingerprints("vast-1")) == OFFERS
    with pytest.raises(RigError, match="has offered no key"):
        kept.accept("vast-1", sha256(seen))
