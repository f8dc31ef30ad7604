"""Every mistake in lab.yml is one line with file, line and remedy, exit code not 0, and nobody is dialled."""

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import PASSPHRASE, Port, Ran

# (what is wrong, lab.yml, the line that is named, what the one line says). PLAIN, LOCKED and FOLDER are filled in.
CASES = [
    ("bad YAML", "hosts:\n  a: {address: 127.0.0.1\n  b: {}\n", 3, ["bad YAML", "lab.example.yml"]),
    ("a tab", "hosts:\n\ta: {}\n", 2, ["bad YAML", "'\\t'"]),
    ("a character that YAML forbids", "hosts:\n  a: {user: \"\x07\"}\n", 2, ["bad YAML", "character"]),
    ("an unknown alias", "hosts:\n  a: *nobody\n", 2, ["bad YAML", "undefined alias"]),
    ("unknown key", "hosts:\n  a:\n    address: 127.0.0.1\n    adress: x\n", 4,
     ["unknown key 'adress' in host a", "did you mean address?"]),
    ("another tool's word", "hosts:\n  a: {ansible_host: 127.0.0.1}\n", 2, ["did you mean address?"]),
    ("misspelt knob", "hosts:\n  a:\n    nvidia_driver_brunch: 580\n", 3, ["did you mean nvidia_driver_branch?"]),
    ("unknown key that resembles none", "hosts:\n  a:\n    zzz: 1\n", 3, ["it takes address, port, user, key"]),
    ("unknown key in defaults", "defaults:\n  usr: me\nhosts:\n  a: {}\n", 2, ["'usr' in defaults", "mean user?"]),
    ("unknown key on top", "host:\n  a: {}\n", 1, ["unknown key 'host'", "defaults and hosts"]),
    ("a knob of the wrong type", "hosts:\n  a:\n    allow_busy_gpu: maybe\n", 3, ["allow_busy_gpu must be true"]),
    ("a knob's unknown word", "hosts:\n  a:\n    reboot: perhaps\n", 3, ["reboot can't be 'perhaps'", "never"]),
    ("host given twice", "hosts:\n  a: {address: 127.0.0.1}\n  b: {}\n  a: {address: 127.0.0.2}\n", 4,
     ["'a' stands twice in hosts, first in line 3"]),
    ("key given twice", "hosts:\n  a:\n    user: x\n    user: y\n", 4, ["'user' stands twice in host a"]),
    ("address given twice", "hosts:\n  a: {address: 127.0.0.2}\n  b:\n    address: 127.0.0.2\n", 3,
     ["b has the address of a: 127.0.0.2 port 22", "once"]),
    ("one address as a name and as an address", "hosts:\n  gpu.lab: {}\n  b: {address: GPU.lab, port: 22}\n", 3,
     ["b has the address of gpu.lab"]),
    ("key file missing", "hosts:\n  a:\n    address: 127.0.0.1\n    key: ~/nowhere/id\n", 4,
     ["key of a is not there", "/nowhere/id", "ssh-keygen"]),
    ("key file missing, relative to lab.yml", "hosts:\n  a: {key: keys/id}\n", 2, ["FOLDER/keys/id"]),
    ("the public key", "hosts:\n  a: {key: PLAIN.pub}\n", 2, ["public key", "name the private one: plain"]),
    ("not a key", "hosts:\n  a: {key: lab.yml}\n", 2, ["not a private key"]),
    ("passphrase without a way to it", "hosts:\n  a: {key: LOCKED}\n", 2, ["has a passphrase", "key_passphrase_env:"]),
    ("passphrase variable not set", "hosts:\n  a:\n    key: LOCKED\n    key_passphrase_env: RIG_UNSET\n", 4,
     ["environment variable RIG_UNSET", "not set"]),
    ("wrong passphrase", "hosts:\n  a:\n    key: LOCKED\n    key_passphrase_env: RIG_WRONG\n", 4,
     ["the passphrase does not open key"]),
    ("sudo password variable not set", "hosts:\n  a:\n    sudo_password_env: RIG_UNSET\n", 3,
     ["environment variable RIG_UNSET (sudo_password_env of a) is not set"]),
    ("a secret in the file", "hosts:\n  a:\n    sudo_password: hunter2\n", 3, ["sudo_password_env: SUDO_PASSWORD"]),
    ("a secret where its variable's name belongs", "hosts:\n  a:\n    password_env: hunter2\n", 3,
     ["must be the name of an environment variable, in capitals"]),
    ("port out of range", "hosts:\n  a:\n    port: 70000\n", 3, ["port of a can't be 70000", "1 to 65535"]),
    ("port as text", "hosts:\n  a:\n    port: ssh\n", 3, ["port of a can't be 'ssh'"]),
    ("address with user and port", "hosts:\n  a:\n    address: me@127.0.0.1:22\n", 3, ["address of a can't be"]),
    ("address that is a number", "hosts:\n  a:\n    address: 10.5\n", 3, ["address of a must be text"]),
    ("unknown host key policy", "hosts:\n  a:\n    host_keys: maybe\n", 3, ["accept-new, strict, ignore"]),
    ("host's name is a number", "hosts:\n  5090: {}\n", 2, ["not text", 'put it in quotes: "5090"']),
    ("host's name is a connector", "hosts:\n  \"@local\": {}\n", 2, ["can't be called '@local'"]),
    ("host is called as the group", "hosts:\n  lab: {}\n", 2, ["can't be called 'lab'"]),
    ("host isn't a mapping", "hosts:\n  a: 127.0.0.1\n", 2, ["host a must be a mapping"]),
    ("hosts is a list", "hosts:\n- 127.0.0.1\n", 2, ["hosts must be a mapping"]),
    ("no hosts in it", "hosts:\n", 1, ["hosts is empty"]),
    ("no hosts at all", "defaults: {user: me}\n", 1, ["the file has no hosts"]),
    ("not a mapping", "just words\n", 1, ["the file must be a mapping"]),
]


@pytest.mark.parametrize(("text", "line", "words"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_one_line_and_nobody_dialled(text: str, line: int, words: list[str], tmp_path: Path, keys: Path, port: Port,
                                     pyinfra: Callable[..., Ran]) -> None:
    values = {"PLAIN": f"{keys}/plain", "LOCKED": f"{keys}/locked", "FOLDER": str(tmp_path)}
    for name, value in values.items():
        text = text.replace(name, value)
        words = [word.replace(name, value) for word in words]
    lab = tmp_path / "lab.yml"
    if "hosts:\n  " in text:  # had anything been dialled, this one would know
        head, tail = text.split("hosts:\n", 1)
        text = f"{head}hosts:\n  sound: {{address: 127.0.0.1, port: {port.number}}}\n{tail}"
        line += line > head.count("\n") + 1
    lab.write_text(text)
    ran = pyinfra("inventories/lab.py", "fact", "server.Date", LAB_HOSTS=str(lab), RIG_WRONG="not it")
    assert ran.code != 0
    assert len(ran.said) == 1, ran.said
    said = ran.said[0]
    assert f" · {lab}:{line} · " in said
    for word in words:
        assert word in said
    assert "hunter2" not in said and PASSPHRASE not in said
    assert "Traceback" not in ran.out + ran.err
    assert not port.dialled


def refused(ran: Ran, *words: str) -> None:
    assert ran.code != 0 and len(ran.said) == 1 and "Traceback" not in ran.err
    for word in words:
        assert word in ran.said[0]


def test_no_file(tmp_path: Path, pyinfra: Callable[..., Ran]) -> None:
    ran = pyinfra("inventories/lab.py", "fact", "server.Date", LAB_HOSTS=f"{tmp_path}/none.yml")
    refused(ran, f"no such file · {tmp_path}/none.yml · copy inventories/lab.example.yml there", "LAB_HOSTS=path")


def test_empty_file(tmp_path: Path, pyinfra: Callable[..., Ran]) -> None:
    (tmp_path / "lab.yml").write_text("# nothing yet\n")
    ran = pyinfra("inventories/lab.py", "fact", "server.Date", LAB_HOSTS=f"{tmp_path}/lab.yml")
    refused(ran, "the file is empty", "lab.example.yml shows the form")


def test_a_folder(tmp_path: Path, pyinfra: Callable[..., Ran]) -> None:
    refused(pyinfra("inventories/lab.py", "fact", "server.Date", LAB_HOSTS=str(tmp_path)), "can't be read", "directory")


def test_not_utf8(tmp_path: Path, pyinfra: Callable[..., Ran]) -> None:
    (tmp_path / "lab.yml").write_bytes(b"hosts: {\xff\xfe}")
    refused(pyinfra("inventories/lab.py", "fact", "server.Date", LAB_HOSTS=f"{tmp_path}/lab.yml"), "not UTF-8")


def test_the_deploy_is_refused_as_well(tmp_path: Path, pyinfra: Callable[..., Ran]) -> None:
    ran = pyinfra("inventories/lab.py", "deploy/5090.py", "--dry", LAB_HOSTS=f"{tmp_path}/none.yml")
    refused(ran, "no such file")


def test_known_hosts_is_made_for_its_owner_alone(tmp_path: Path, port: Port, pyinfra: Callable[..., Ran]) -> None:
    (tmp_path / "lab.yml").write_text("hosts:\n  a: {address: 127.0.0.1, known_hosts: ssh/known_hosts}\n")
    assert pyinfra("inventories/lab.py", "debug-inventory", LAB_HOSTS=f"{tmp_path}/lab.yml").code == 0
    assert stat.S_IMODE((tmp_path / "ssh" / "known_hosts").stat().st_mode) == 0o600
