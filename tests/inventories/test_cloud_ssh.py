"""Rented machines over real SSH, by pyinfra's own command line: an alias behind a jump host, a pasted line, and a
machine that was made again at its old address. Hosts are the testbed's; their sshd and OpenSSH's files are real.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from qwen_rig import cli, exits
from testbed.bed import Testbed
from testbed.spec import HostInfo, HostSpec
from tests import instance

from .conftest import Ran
from .test_host_keys import new_key

pytestmark = pytest.mark.testbed
PORT = 40122  # an odd one, as containers have
RUN = ("-y", "inventories/cloud.py", "exec", "--", "hostname")


@pytest.fixture(scope="module")
def bed() -> Iterator[Testbed]:
    if os.getuid() != 0 or sys.platform != "linux":
        pytest.skip("the testbed needs root on Linux")
    with Testbed(instance("cloud-ssh")) as made:
        made.up([HostSpec("gate"), HostSpec("pod")])
        made.exec_("pod", ["sh", "-c", f"/usr/sbin/sshd -p {PORT} -E /var/log/odd.log"], check=True)
        yield made


@pytest.fixture
def home(bed: Testbed, tmp_path: Path) -> Path:
    """A home with an ssh_config as SkyPilot and dstack write them: included files, patterns, a jump host."""
    gate, pod = bed.host("gate"), bed.host("pod")
    ssh = tmp_path / ".ssh"
    (ssh / "generated").mkdir(parents=True)
    (ssh / "config").write_text(f"Include generated/*\n\nHost gate\n  HostName {gate.address}\n  User root\n"
                                f"  IdentityFile {gate.key}\n")
    (ssh / "generated" / "my-cluster").write_text(
        f"Host my-cluster\n  HostName {pod.address}\n  Port {PORT}\n\n"
        f"Host my-*\n  User root\n  IdentityFile {pod.key}\n  ProxyJump gate\n")
    return tmp_path


def knows(home: Path, host: HostInfo) -> None:
    """As if one had logged in there by hand before."""
    said = subprocess.run(["ssh-keyscan", "-t", "ed25519", host.address], capture_output=True, text=True, check=True)
    (home / ".ssh" / "known_hosts").write_text(said.stdout)


def cloud(folder: Path, sources: dict[str, Any]) -> dict[str, str]:
    (folder / "cloud.yml").write_text(yaml.safe_dump({"defaults": {"known_hosts": "kept"}, "sources": sources}))
    return {"CLOUD_HOSTS": f"{folder}/cloud.yml", "HOME": str(folder)}


def peers(bed: Testbed) -> set[str]:
    """From where the pod's odd port was dialled so far."""
    return set(re.findall(r"Connection from (\S+) port", bed.exec_("pod", ["cat", "/var/log/odd.log"]).stdout))


def test_an_alias_behind_a_jump_host(bed: Testbed, home: Path, pyinfra: Callable[..., Ran]) -> None:
    knows(home, bed.host("gate"))
    env = cloud(home, {"mine": {"source": "ssh-config", "hosts": ["my-cluster"]}})
    ran = pyinfra(*RUN, **env)
    assert ran.code == 0 and "] pod" in ran.err, ran.err
    assert peers(bed) == {bed.host("gate").address}, "through the jump host, and only so"
    assert (home / "kept").read_text().startswith("my-cluster ssh-ed25519 ")


def test_a_jump_host_that_nobody_met_is_a_card_and_no_question(bed: Testbed, home: Path,
                                                               pyinfra: Callable[..., Ran]) -> None:
    ran = pyinfra(*RUN, **cloud(home, {"mine": {"source": "ssh-config", "hosts": ["my-cluster"]}}))
    said = " ".join(ran.err.replace("│", " ").split())
    assert ran.code == 1 and "Traceback" not in ran.out + ran.err, ran.err
    assert "ssh my-cluster" in said, said


def test_a_pasted_line(bed: Testbed, home: Path, pyinfra: Callable[..., Ran]) -> None:
    pod = bed.host("pod")
    (home / "key").symlink_to(pod.key)
    with (home / ".ssh" / "config").open("a") as config:  # what the line says stands above it, as with ssh itself
        config.write("\nHost *\n  User nobody\n  Port 9\n")
    line = f"ssh -p {PORT} root@{pod.address} -i key -L 8080:localhost:8080"
    ran = pyinfra(*RUN, **cloud(home, {"box": {"source": "ssh", "hosts": {"box-1": line}}}))
    assert ran.code == 0 and "] pod" in ran.err, ran.err
    assert peers(bed) - {bed.host("gate").address}, "dialled directly"


def test_the_second_door_takes_a_cloud_yml_too(bed: Testbed, home: Path) -> None:
    pod = bed.host("pod")
    lines = {"box-1": f"ssh -p {PORT} root@{pod.address}"}
    env = cloud(home, {"box": {"source": "ssh", "key": pod.key, "hosts": lines}})
    del env["CLOUD_HOSTS"]
    done = subprocess.run([sys.executable, "-m", "qwen_rig", "plan", "-i", f"{home}/cloud.yml", "--data",
                           "stack=standin"],
                          cwd=home, env={**os.environ, **env}, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert done.returncode == exits.CHANGES and "box-1  RTX 5090" in done.stdout + done.stderr, done.stderr


def test_a_machine_made_again_at_its_old_address(bed: Testbed, home: Path, pyinfra: Callable[..., Ran],
                                                 capsys: pytest.CaptureFixture[str]) -> None:
    gate = bed.host("gate")

    def rented(number: int) -> dict[str, str]:
        row = {"id": number, "actual_status": "running", "ssh_host": gate.address, "ssh_port": 22, "label": "$(id)"}
        idle = {"id": 9, "actual_status": "exited", "ssh_host": gate.address, "ssh_port": 22, "label": "old"}
        (home / "vast.json").write_text(json.dumps([row, idle]))
        return cloud(home, {"v": {"source": "vast", "file": "vast.json", "key": gate.key}})

    first = pyinfra(*RUN, **rented(1))
    assert first.code == 0 and "vast-1: first use" in first.err, first.err
    assert "vast-9 ('old') is exited: listed, not dialled" in first.err
    offered = new_key(bed, "gate")
    refused = pyinfra(*RUN, **rented(1))
    said = " ".join(refused.err.replace("│", " ").split())
    assert refused.code == 1 and "host key of vast-1 has changed" in said and offered in said, refused.err
    assert f"qwen-rig host-keys accept vast-1 {offered} --file" in said
    other = pyinfra(*RUN, **rented(2))
    assert other.code == 0 and "vast-2: first use" in other.err, "another machine at that address is no conflict"
    assert cli.main(["host-keys", "accept", "vast-1", offered, "--file", f"{home}/kept"]) == 0
    assert offered in capsys.readouterr().out
    accepted = pyinfra(*RUN, **rented(1))
    assert accepted.code == 0 and "host key" not in accepted.err, accepted.err
