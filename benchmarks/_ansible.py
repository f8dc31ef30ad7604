"""ansible-core in a venv of its own, and the same checks as a playbook."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from qwen_rig.facts.state import State
from qwen_rig.managed import GUARD, REPOSITORY
from testbed.spec import HostInfo

PLAYBOOK = Path(__file__).with_name("playbook.yml")


def installed(cache: Path) -> tuple[Path, str]:
    """(folder of its commands, its version). Installed on the first call. Raises CalledProcessError."""
    venv = cache / f"ansible-py{sys.version_info.major}{sys.version_info.minor}"
    python, done = venv / "bin" / "python", venv / ".done"
    if not done.exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(venv)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "-qq", "--disable-pip-version-check", "ansible-core"],
                       check=True)
        done.touch()
    version = subprocess.run([str(python), "-c", "import ansible.release as r; print(r.__version__)"], check=True,
                             capture_output=True, text=True).stdout.strip()
    return venv / "bin", version


def write(folder: Path, hosts: Sequence[HostInfo], state: State, repository_text: str) -> None:
    """ansible.cfg, inventory and variables for these hosts; `state` is the probe's word on one of them."""
    (folder / "ansible.cfg").write_text(
        f"[defaults]\nforks = {len(hosts)}\ngathering = explicit\nhost_key_checking = False\n"
        "retry_files_enabled = False\nnocows = True\n"
        "[ssh_connection]\npipelining = True\n"
        "ssh_args = -F none -o ControlMaster=auto -o ControlPersist=60s -o UserKnownHostsFile=/dev/null "
        "-o LogLevel=ERROR\n")
    (folder / "hosts.ini").write_text("".join(
        f"{host.name} ansible_host={host.address} ansible_port={host.port} ansible_user={host.user} "
        f"ansible_ssh_private_key_file={host.key} ansible_python_interpreter=/usr/bin/python3\n" for host in hosts))
    nouveau, upgrades = GUARD
    env = state.env
    assert env is not None  # the fleet is converged
    site = sorted(f"{name.replace('-', '_')}-{version}.dist-info" for name, version in env.packages.items())
    (folder / "vars.json").write_text(json.dumps({
        "driver_version": state.driver.loaded_version,
        "driver_packages": sorted(name for name in state.dpkg if name.startswith("nvidia")),
        "repository_path": REPOSITORY, "repository_text": repository_text,
        "nouveau_path": nouveau, "nouveau_text": GUARD[nouveau],
        "upgrades_path": upgrades, "upgrades_text": GUARD[upgrades],
        "conda_prefix": state.conda[0].prefix, "env_link": env.path, "dist_infos": site}))


def command(binaries: Path, folder: Path) -> tuple[list[str], dict[str, str]]:
    """The command line and environment of one run, with connections of its own."""
    return ([str(binaries / "ansible-playbook"), "-i", str(folder / "hosts.ini"), "-e", f"@{folder}/vars.json",
             str(PLAYBOOK)],
            {"ANSIBLE_CONFIG": str(folder / "ansible.cfg"), "ANSIBLE_HOME": str(folder / "home"),
             "ANSIBLE_SSH_CONTROL_PATH_DIR": tempfile.mkdtemp(prefix="cp-"), "ANSIBLE_NOCOLOR": "1",
             "PATH": f"{binaries}:{os.environ.get('PATH', '')}"})


def hang_up(env: dict[str, str]) -> None:
    """Close the connections that a run has left open, so that the next run pays for its own."""
    folder = Path(env["ANSIBLE_SSH_CONTROL_PATH_DIR"])
    for path in folder.iterdir():
        subprocess.run(["ssh", "-F", "none", "-o", f"ControlPath={path}", "-O", "exit", "host"], capture_output=True)
    for path in folder.iterdir():
        path.unlink(missing_ok=True)
    folder.rmdir()
