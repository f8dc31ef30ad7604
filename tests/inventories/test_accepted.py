"""What lab.yml says is what pyinfra gets; secrets reach the host and nothing else."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qwen_rig.errors import RigError
from qwen_rig.lab import load_hosts
from qwen_rig.ssh import connect_kwargs, transport
from tests import HANG_S

from .conftest import PASSPHRASE, ROOT, Ran


def lab(folder: Path, text: str) -> Path:
    (folder / "lab.yml").write_text(text)
    return folder / "lab.yml"


def data(ran: Ran) -> dict[str, dict[str, Any]]:
    return {host["name"]: host for host in json.loads(ran.out)}


def test_defaults_and_hosts(tmp_path: Path, keys: Path, pyinfra: Callable[..., Ran]) -> None:
    path = lab(tmp_path, f"""
defaults: &d {{user: ubuntu, key: {keys}/plain, reboot: never}}
hosts:
  lab-01: {{address: 192.0.2.1}}
  lab-02: {{address: 192.0.2.2, port: 2222, user: root, reboot: auto, nvidia_driver_branch: 590, x_rack: [a, b]}}
  alias-in-ssh-config:
""")
    ran = pyinfra("inventories/lab.py", "debug-inventory", "--json", LAB_HOSTS=str(path))
    assert ran.code == 0, ran.err
    hosts = data(ran)
    assert list(hosts) == ["lab-01", "lab-02", "alias-in-ssh-config"]
    assert all(host["groups"] == ["lab"] for host in hosts.values())
    first, second = hosts["lab-01"]["data"], hosts["lab-02"]["data"]
    assert (first["ssh_hostname"], first["ssh_user"], first["ssh_key"]) == ("192.0.2.1", "ubuntu", f"{keys}/plain")
    assert "ssh_port" not in first
    assert (first["reboot"], second["reboot"], second["nvidia_driver_branch"]) == ("never", "auto", 590)
    assert (second["ssh_port"], second["ssh_user"], second["x_rack"]) == (2222, "root", ["a", "b"])
    assert "ssh_hostname" not in hosts["alias-in-ssh-config"]["data"]


def test_the_manual_is_valid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keys: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "id_ed25519").write_text((keys / "plain").read_text())
    assert [name for name, _ in load_hosts(ROOT / "inventories" / "lab.example.yml")] == ["lab-01", "lab-02"]


def test_relative_paths_start_at_the_file(tmp_path: Path, keys: Path) -> None:
    (tmp_path / "keys").symlink_to(keys)
    (_, host), = load_hosts(lab(tmp_path, "hosts: {a: {key: keys/plain, known_hosts: kh}}"))
    assert host == {"ssh_key": f"{tmp_path}/keys/plain", "ssh_known_hosts_file": f"{tmp_path}/kh"}


def test_merge_keys(tmp_path: Path) -> None:
    path = lab(tmp_path, "hosts:\n  a: &a {user: me, port: 22}\n  b:\n    <<: *a\n    port: 23\n")
    assert load_hosts(path)[1] == ("b", {"ssh_user": "me", "ssh_port": 23})


def test_a_terminal_is_asked_once(tmp_path: Path, keys: Path) -> None:
    asked: list[str] = []

    def ask(what: str) -> str:
        asked.append(what)
        return PASSPHRASE

    path = lab(tmp_path, f"""
defaults: {{key: {keys}/locked, sudo_password_env: RIG_UNSET}}
hosts: {{a: {{}}, b: {{}}}}
""")
    hosts = load_hosts(path, ask)
    assert sorted(asked) == ["RIG_UNSET", f"passphrase of {keys}/locked"]
    assert all(data["_sudo_password"] == data["ssh_key_password"] == PASSPHRASE for _, data in hosts)


def test_nothing_typed(tmp_path: Path) -> None:
    def ask(what: str) -> str:
        raise EOFError

    with pytest.raises(RigError, match="no RIG_UNSET was given"):
        load_hosts(lab(tmp_path, "hosts: {a: {sudo_password_env: RIG_UNSET}}"), ask)


def test_a_dead_port_brings_no_traceback(tmp_path: Path, pyinfra: Callable[..., Ran]) -> None:
    """paramiko logs one where its peer hangs up in the greeting."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(HANG_S)
        number = listening.getsockname()[1]
        path = lab(tmp_path, f"hosts: {{a: {{address: 127.0.0.1, port: {number}, known_hosts: k, user: me}}}}")

        hang_up = threading.Thread(target=lambda: listening.accept()[0].close(), daemon=True)
        hang_up.start()
        ran = pyinfra("inventories/lab.py", "fact", "server.Date", "-y", LAB_HOSTS=str(path))
    assert ran.code != 0
    assert "Traceback" not in ran.out + ran.err, ran.err
    assert "SSH error" in ran.err


def test_a_channel_has_no_options_to_set() -> None:
    """Behind ProxyJump the socket is a paramiko channel."""
    class Channel:
        def settimeout(self, seconds: float) -> None: ...
        def close(self) -> None: ...

    made = transport(Channel(), disabled_algorithms=None)
    assert not made.is_active()
    assert connect_kwargs() == {"transport_factory": transport}


def test_this_machine(pyinfra: Callable[..., Ran]) -> None:
    ran = pyinfra("inventories/local.py", "fact", "server.Command", "command=echo here", "--json")
    assert ran.code == 0 and json.loads(ran.out) == {"server.Command (command=echo here)": {"@local": "here"}}
