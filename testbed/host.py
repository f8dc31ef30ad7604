"""One host: what is on its disk before the first boot, its supervisor, and what can be done to it from outside."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from . import cgroup, gpu
from ._shell import FILES, HANG_S, TestbedError, run
from .base import HOSTNAME
from .paths import cache, locked
from .spec import HostInfo

HOMES = {"root": "root", "dev": "home/dev", "pw": "home/pw", "nosudo": "home/nosudo"}
UIDS = {"root": 0, "dev": 1000, "pw": 1001, "nosudo": 1002}  # useradd's, in the base's order
PLENTY = 10**7  # inodes of a disk that has enough of them
SESSION = re.compile(rb"Starting session: (command|shell|subsystem)\b")


def client_key() -> Path:
    """The key that opens every host; made once."""
    return _key(cache() / "keys" / "client")


def prepare(folder: Path, info: HostInfo, gateway: str, base: str, repository: Path) -> None:
    """Write a host's folder: its settings, and the seed that is copied onto its disk."""
    spec, seed = info.spec, folder / "seed"
    seed.mkdir(parents=True)
    # One key per address, kept: a client that has seen this address before meets no changed host key.
    key = _key(cache() / "keys" / f"host-{info.address}")
    _write(seed, "etc/hostname", f"{info.name}\n")
    _write(seed, "etc/hosts", f"127.0.0.1 localhost\n127.0.1.1 {info.name}\n{gateway} {HOSTNAME}\n")
    _write(seed, "etc/machine-id", hashlib.md5(info.address.encode() + os.urandom(8)).hexdigest() + "\n")
    _write(seed, "etc/resolv.conf", "# no name server: this host has no route out\n")
    _write(seed, "etc/ssh/ssh_host_ed25519_key", key.read_text(), 0o600)
    _write(seed, "etc/ssh/ssh_host_ed25519_key.pub", Path(f"{key}.pub").read_text())
    home, uid = HOMES[info.user], UIDS[info.user]
    _write(seed, f"{home}/.ssh/authorized_keys", Path(f"{client_key()}.pub").read_text(), 0o600)
    for path in (seed / home, seed / home / ".ssh", seed / home / ".ssh" / "authorized_keys"):
        os.chown(path, uid, uid)
        path.chmod(0o700 if path.is_dir() else 0o600)
    gpu.seed(seed, folder, spec)
    values = {
        "NAME": info.name, "ADDRESS": info.address, "FILES": str(FILES), "REPOSITORY": str(repository),
        "LOWER": ":".join(filter(None, [spec.image, base])), "ROOT_MIB": str(spec.root_mib or ""),
        "INSTALL": " ".join(gpu.preinstalled(spec)),
        "INIT_ENV": "container=docker" if spec.kind == "container" else "", "KIND": spec.kind,
        "MEMORY_MIB": str(spec.memory_mib or ""), "DATA": spec.data or "", "UID_OF_USER": str(uid),
        "CGROUP": str(cgroup.of(folder)) if spec.kind == "vm" else "",
    }
    (folder / "host.env").write_text("".join(f"{k}={shlex.quote(v)}\n" for k, v in values.items()), encoding="utf-8")
    (folder / "gpu.env").write_text(gpu.environment(info), encoding="utf-8")
    (folder / "power").write_text("on\n", encoding="utf-8")
    for name in ("disk", "root"):
        (folder / name).mkdir()


def start(folder: Path) -> int:
    """Start a host's supervisor in its own network and mount namespace; returns its pid. It waits for its cable."""
    with open(folder / "console.log", "ab") as log:
        process = subprocess.Popen(
            ["env", "--default-signal=HUP,INT,TERM", "unshare", "--mount", "--propagation", "private", "--net",
             "/bin/sh", str(FILES / "supervisor.sh"), str(folder)],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    own = os.readlink("/proc/self/ns/net")
    deadline = time.monotonic() + HANG_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if os.readlink(f"/proc/{process.pid}/ns/net") != own:
                return process.pid
        except OSError:
            break
        time.sleep(0.002)
    raise TestbedError(f"{folder.name} · its namespaces did not come up · {console(folder)}")


def wait(folder: Path, info: HostInfo, timeout: float = HANG_S) -> None:
    """Return when sshd greets; TestbedError with the console's last lines when it doesn't."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        try:
            with socket.create_connection((info.address, info.port), timeout=5) as connection:
                connection.settimeout(60)
                if connection.recv(4) == b"SSH-":
                    return
        except OSError:
            time.sleep(0.02)
    raise TestbedError(f"{info.name} · no sshd at {info.address} after {timeout:.0f} s · {console(folder)}")


def console(folder: Path) -> str:
    """The last words of a host's supervisor and init."""
    try:
        return " / ".join((folder / "console.log").read_text(errors="replace").strip().splitlines()[-4:]) or "silent"
    except OSError:
        return "no console"


def init_pid(folder: Path) -> int | None:
    """The controller's number for the host's pid 1; None while the host is off."""
    try:
        text = (folder / "init.pid").read_text(encoding="utf-8").strip()
    except OSError:
        return None
    return int(text) if text and Path(f"/proc/{text}").exists() else None


def enter(folder: Path, argv: Sequence[str], user: str = "root") -> list[str]:
    """The command line that runs `argv` on a host without SSH: no session is counted, a pulled cable is no matter."""
    pid = init_pid(folder)
    if pid is None:
        raise TestbedError(f"{folder.name} · is off · boot it")
    become = [] if user == "root" else ["runuser", "-u", user, "--"]
    return ["nsenter", "-t", str(pid), "-m", "-u", "-i", "-n", "-p", "-T", "--wd=/", "--", "env", "-i",
            "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", f"HOME=/{HOMES[user]}", *become, *argv]


def power_cut(folder: Path) -> None:
    """Off, without a word to anyone."""
    (folder / "power").write_text("off\n", encoding="utf-8")
    pid = init_pid(folder)
    if pid is not None:
        os.kill(pid, signal.SIGKILL)


def room(folder: Path, most: int, mib: int | None, inodes: int | None) -> None:
    """Leave that much free on a host's own disk, which its supervisor has mounted; None: all that it has."""
    pid = init_pid(folder)
    if pid is None:
        raise TestbedError(f"{folder.name} · is off · boot it")
    supervisor = _parent(_parent(pid))  # between them: unshare, which waits for the host's end
    enter = ["nsenter", "-t", str(supervisor), "-m", "--"]
    used_kib, used_inodes = run([*enter, "df", "--output=used,iused", folder / "disk"]).split()[-2:]
    size = f"{most}m" if mib is None else f"{int(used_kib) + 1024 * mib}k"
    files = PLENTY if inodes is None else int(used_inodes) + inodes
    run([*enter, "mount", "-o", f"remount,size={size},nr_inodes={files}", folder / "disk"])


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[1])


def sessions(folder: Path) -> dict[str, int]:
    """How many commands, shells and subsystems (sftp) sshd started, as its own log has it, over all boots."""
    counts = {"command": 0, "shell": 0, "subsystem": 0}
    try:
        text = (folder / "sshd.log").read_bytes()
    except OSError:
        return counts
    for kind in SESSION.findall(text):
        counts[kind.decode()] += 1
    return counts


def _key(path: Path) -> Path:
    with locked("keys"):  # several testbeds may come up at once in a new cache
        if not Path(f"{path}.pub").exists():
            path.parent.mkdir(mode=0o700, exist_ok=True)
            path.unlink(missing_ok=True)  # half a pair, of a run that was broken off
            run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "qwen-rig-testbed", "-f", path])
    return path


def _write(seed: Path, name: str, text: str, mode: int = 0o644) -> None:
    path = seed / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)
