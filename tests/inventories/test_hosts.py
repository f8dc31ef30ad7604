"""On real hosts: sudo with a password, login with a password, and a cable that is pulled."""

from __future__ import annotations

import json
import os
import re
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from testbed.bed import Testbed
from testbed.spec import PASSWORD, HostSpec
from tests import HANG_S, instance, until

from .conftest import PASSPHRASE, ROOT, Ran

pytestmark = pytest.mark.testbed


@pytest.fixture(scope="module")
def bed() -> Iterator[Testbed]:
    if os.getuid() != 0 or sys.platform != "linux":
        pytest.skip("the testbed needs root on Linux")
    with Testbed(instance("inventories")) as made:
        made.up([HostSpec("asks", user="pw"), HostSpec("root-01")])
        yield made


def lab(bed: Testbed, folder: Path, name: str, more: str = "", key: bool = True, port: int = 22) -> str:
    host = bed.host(name)
    (folder / "lab.yml").write_text(
        f"hosts:\n  {name}:\n    address: {host.address}\n    port: {port}\n    user: {host.user}\n"
        f"    known_hosts: known_hosts\n{f'    key: {host.key}' if key else ''}\n{more}")
    return f"{folder}/lab.yml"


SOCKET = """
import socket
from pyinfra import host
transport = host.connector.client.get_transport()
print("SOCKET", {name: transport.sock.getsockopt(level, getattr(socket, name)) for level, name in [
    (socket.IPPROTO_TCP, "TCP_NODELAY"), (socket.SOL_SOCKET, "SO_KEEPALIVE"),
    (socket.IPPROTO_TCP, "TCP_USER_TIMEOUT")]})
"""


def test_a_key_with_a_passphrase(bed: Testbed, tmp_path: Path, keys: Path, pyinfra: Callable[..., Ran]) -> None:
    bed.exec_("root-01", ["sh", "-c", "cat >>/root/.ssh/authorized_keys"], stdin=(keys / "locked.pub").read_text(),
              check=True)
    path = lab(bed, tmp_path, "root-01", f"    key: {keys}/locked\n    key_passphrase_env: RIG_PASSPHRASE\n"
               "    sudo_password_env: RIG_SUDO\n    password_env: RIG_LOGIN\n", key=False)
    secrets = {"RIG_PASSPHRASE": PASSPHRASE, "RIG_SUDO": "sudo-secret", "RIG_LOGIN": "login-secret"}
    ran = pyinfra("inventories/lab.py", "fact", "server.Command", "command=echo $((6*7))", "--json", LAB_HOSTS=path,
                  **secrets)
    assert ran.code == 0, ran.err
    assert '"42"' in ran.out or ": 42" in ran.out, ran.out
    told = pyinfra("inventories/lab.py", "debug-inventory", "-vvv", "--debug", LAB_HOSTS=path, **secrets)
    assert told.code == 0 and "ssh_hostname" in told.err
    for secret in secrets.values():
        assert secret not in ran.out + ran.err + told.out + told.err


def test_the_socket_is_tuned(bed: Testbed, tmp_path: Path, pyinfra: Callable[..., Ran]) -> None:
    (tmp_path / "look.py").write_text(SOCKET)
    ran = pyinfra("inventories/lab.py", f"{tmp_path}/look.py", "--dry", LAB_HOSTS=lab(bed, tmp_path, "root-01"))
    assert "SOCKET {'TCP_NODELAY': 1, 'SO_KEEPALIVE': 1, 'TCP_USER_TIMEOUT': 20000}" in ran.out, ran.out + ran.err


def test_sudo_with_a_password(bed: Testbed, tmp_path: Path, pyinfra: Callable[..., Ran]) -> None:
    path = lab(bed, tmp_path, "asks", "    sudo_password_env: RIG_SUDO\n")
    ran = pyinfra("inventories/lab.py", "server.shell", "id -un; id -un >&2", "--sudo", "-y", "-vvv",
                  LAB_HOSTS=path, RIG_SUDO=PASSWORD)
    assert ran.code == 0, ran.err
    assert "] root" in ran.err
    assert f"PASSWORD={PASSWORD}" not in ran.err and f"'{PASSWORD}'" not in ran.err


def test_nothing_but_sudo_steps_pays_for_it(bed: Testbed, tmp_path: Path, pyinfra: Callable[..., Ran]) -> None:
    path = lab(bed, tmp_path, "asks", "    sudo_password_env: RIG_SUDO\n")
    before = bed.execs("asks")
    ran = pyinfra("inventories/lab.py", "fact", "server.Date", LAB_HOSTS=path, RIG_SUDO=PASSWORD)
    assert ran.code == 0, ran.err
    assert bed.execs("asks") - before == 1


def test_login_with_a_password(bed: Testbed, tmp_path: Path, pyinfra: Callable[..., Ran]) -> None:
    # A second sshd beside the host's own, which takes keys alone.
    bed.exec_("asks", ["/usr/sbin/sshd", "-p", "2200", "-o", "PasswordAuthentication=yes", "-o", "UsePAM=no"],
              check=True)
    path = lab(bed, tmp_path, "asks", "    password_env: RIG_LOGIN\n", key=False, port=2200)
    ran = pyinfra("inventories/lab.py", "fact", "server.Date", LAB_HOSTS=path, RIG_LOGIN=PASSWORD)
    assert ran.code == 0, ran.err
    wrong = pyinfra("inventories/lab.py", "fact", "server.Date", LAB_HOSTS=path, RIG_LOGIN="no such thing")
    assert wrong.code == 1 and "Traceback" not in wrong.err and "no such thing" not in wrong.err


def connected(address: str) -> bool:
    """Whether this machine's kernel has an established connection to port 22 there."""
    there = f"{int.from_bytes(socket.inet_aton(address), 'little'):08X}:0016"
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return any((row[2], row[3]) == (there, "01") for row in rows)  # proc(5): rem_address, st


def test_a_pulled_cable_ends_the_run(bed: Testbed, tmp_path: Path) -> None:
    """20 seconds without an acknowledgement, found by a keepalive every 5; without them pyinfra would hang.

    The seconds are the kernel's: when it gives the connection up doesn't hang on how soon pyinfra then comes to an end.
    """
    path = lab(bed, tmp_path, "root-01")
    process = subprocess.Popen([sys.executable, "-m", "pyinfra", "-y", "inventories/lab.py", "exec", "--", "sleep 120"],
                               cwd=ROOT, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                               env={**os.environ, "LAB_HOSTS": path})
    try:
        before = bed.execs("root-01")
        until(lambda: bed.execs("root-01") > before or process.poll() is not None)
        address, pulls = bed.host("root-01").address, time.monotonic()
        assert connected(address)
        bed.cable("root-01", up=False)
        pulled = time.monotonic()
        until(lambda: not connected(address))
        given_up = time.monotonic()
        said = process.communicate(timeout=HANG_S)[1]
    finally:
        process.kill()
        bed.cable("root-01", up=True)
    assert process.returncode == 1, said
    assert given_up - pulls > 10 and given_up - pulled < 45
    assert "Traceback" not in said, said


def rented(bed: Testbed, folder: Path, number: int) -> str:
    """A cloud.yml whose one machine, as vast would list it, is the testbed's root-01."""
    host = bed.host("root-01")
    (folder / "vast.json").write_text(json.dumps([
        {"id": number, "actual_status": "running", "label": "train; reboot", "ssh_host": host.address, "ssh_port": 22},
        {"id": 99, "actual_status": "loading", "label": "young"}]))
    (folder / "cloud.yml").write_text(yaml.safe_dump({"sources": {"rented": {
        "source": "vast", "file": "vast.json", "key": host.key, "known_hosts": "known_hosts"}}}))
    return str(folder / "cloud.yml")


def another_sshd(bed: Testbed, name: str) -> None:
    """End the listening sshd, and come back when the next one greets."""
    bed.exec_(name, ["sh", "-c", "old=$(pgrep -o -x sshd); kill $old; while [ -e /proc/$old ]; do sleep 0.05; done"],
              check=True)
    bed.boot(name)


def test_rented_machines_and_their_host_keys(bed: Testbed, tmp_path: Path, pyinfra: Callable[..., Ran]) -> None:
    ask = ("inventories/cloud.py", "fact", "server.Hostname", "-y")
    first = pyinfra(*ask, CLOUD_HOSTS=rented(bed, tmp_path, 1))
    assert first.code == 0 and "root-01" in first.err + first.out, first.err
    assert "vast-99 ('young') is loading: listed, not dialled" in first.err
    assert "vast-1: first use, host key SHA256:" in first.err and "vast-1 " in (tmp_path / "known_hosts").read_text()

    kept = {name: bed.exec_("root-01", ["cat", f"/etc/ssh/{name}"], check=True).stdout
            for name in ("ssh_host_ed25519_key", "ssh_host_ed25519_key.pub")}
    new_key = "rm /etc/ssh/ssh_host_ed25519_key*; ssh-keygen -q -t ed25519 -N '' -f /etc/ssh/ssh_host_ed25519_key"
    try:
        bed.exec_("root-01", ["sh", "-c", new_key], check=True)
        another_sshd(bed, "root-01")
        changed = pyinfra(*ask, CLOUD_HOSTS=rented(bed, tmp_path, 1))
        assert changed.code == 1 and "host key of vast-1 has changed" in changed.err, changed.err
        said = re.search(r"qwen-rig (host-keys accept vast-1 SHA256:\S+ --file [^\s)]+)",
                         changed.err.replace("\n", " "))
        assert said, changed.err
        other = pyinfra(*ask, CLOUD_HOSTS=rented(bed, tmp_path, 2))
        assert other.code == 0, "another machine at an old address is no conflict"
        accepted = subprocess.run([sys.executable, "-m", "qwen_rig", *shlex.split(said[1])],
                                  cwd=ROOT, capture_output=True,
                                  text=True, check=False)
        assert accepted.returncode == 0, accepted.stderr
        assert pyinfra(*ask, CLOUD_HOSTS=rented(bed, tmp_path, 1)).code == 0
    finally:
        for name, text in kept.items():
            bed.exec_("root-01", ["sh", "-c", f"cat >/etc/ssh/{name}"], stdin=text, check=True)
        another_sshd(bed, "root-01")


def test_an_alias_behind_another_host(bed: Testbed, tmp_path: Path, pyinfra: Callable[..., Ran]) -> None:
    """As SkyPilot writes them: a file that ~/.ssh/config includes, a ProxyJump."""
    outer, inner = bed.host("root-01"), bed.host("asks")
    home = tmp_path / "home"
    (home / ".ssh" / "more").mkdir(parents=True, mode=0o700)
    (home / ".ssh" / "config").write_text(f"Include {home}/.ssh/more/*\n")
    (home / ".ssh" / "more" / "cluster").write_text(
        f"Host gate\n  HostName {outer.address}\n  User root\n  IdentityFile {outer.key}\n"
        f"  StrictHostKeyChecking accept-new\n"
        f"Host my-cluster\n  HostName {inner.address}\n  User {inner.user}\n  IdentityFile {inner.key}\n"
        f"  ProxyJump gate\n")
    (tmp_path / "cloud.yml").write_text(yaml.safe_dump({"sources": {"sky": {
        "source": "ssh-config", "hosts": ["my-cluster"], "known_hosts": "known_hosts"}}}))
    before = bed.sessions("root-01"), bed.execs("asks")
    ran = pyinfra("inventories/cloud.py", "fact", "server.Command", "command=echo $SSH_CONNECTION", "-y",
                  CLOUD_HOSTS=str(tmp_path / "cloud.yml"), HOME=str(home))
    assert ran.code == 0, ran.err
    assert outer.address in ran.out + ran.err, "the inner host saw the gate, not us"
    assert bed.execs("asks") - before[1] == 1 and bed.sessions("root-01") == before[0], "the gate only hands on"
