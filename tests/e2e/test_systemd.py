"""A host under systemd, as a rented VM or a server is one: what logind ends at logout, what unattended upgrades hold,
what refuses a reboot. The test host's pid 1 is a real systemd, with a real logind, and Debian's own unattended-upgrades
runs as its own unit. Emulated: the GPU and NVIDIA's packages."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests import until

from .conftest import Lab
from .test_jobs import Controller, cut, go, journal, waits

pytestmark = pytest.mark.testbed
HOST = "unit"
# A package whose second version is an upgrade that waits for a file, in a repository that upgrades come from.
SLOW = r"""set -e
printf '[Login]\nKillUserProcesses=yes\n' >/etc/systemd/logind.conf && systemctl kill -s HUP systemd-logind
mkdir -p /srv/slow/d/DEBIAN && cd /srv/slow
cat >d/DEBIAN/postinst <<'EOT'
#!/bin/sh
[ -z "$2" ] || { touch /run/upgrading; until [ -e /run/upgraded ]; do sleep 0.1; done; }
EOT
chmod 755 d/DEBIAN/postinst
for version in 1 2; do
  printf 'Package: slow\nVersion: %s\nArchitecture: all\nMaintainer: t <t@localhost>\nDescription: t\n' $version \
    >d/DEBIAN/control
  dpkg-deb -Zgzip -b d slow_$version.deb >/dev/null
done
dpkg -i slow_1.deb >/dev/null
sum() { sha256sum "$1" | cut -d' ' -f1; }
{ cat d/DEBIAN/control; printf 'Filename: ./slow_2.deb\nSize: %s\nSHA256: %s\n' "$(stat -c %s slow_2.deb)" \
  "$(sum slow_2.deb)"; } >Packages
printf 'Origin: slow\nDate: %s\nSHA256:\n %s %s Packages\n' "$(date -Ru)" "$(sum Packages)" "$(stat -c %s Packages)" \
  >Release
echo 'deb [trusted=yes] file:/srv/slow /' >/etc/apt/sources.list.d/slow.list
export DEBIAN_FRONTEND=noninteractive
apt-get -qq update
apt-get -qq -y --no-install-recommends install unattended-upgrades >/dev/null 2>&1
printf '#clear %s;\n%s { "origin=slow"; };\n' Unattended-Upgrade::Origins-Pattern Unattended-Upgrade::Origins-Pattern \
  >/etc/apt/apt.conf.d/99slow
"""


@pytest.fixture(scope="module")
def lab(bed: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    from testbed import HostSpec, TestbedError, cgroup

    try:
        cgroup.tree()
    except TestbedError as error:
        pytest.skip(str(error))
    infos = bed.up([HostSpec(HOST, kind="vm", user="dev")])
    lab = Lab(bed, infos, tmp_path_factory.mktemp("systemd"), compilers="never", flash_attn="off")
    lab.on(HOST, SLOW)
    assert "b true" in lab.on(HOST, "busctl get-property org.freedesktop.login1 /org/freedesktop/login1 "
                                    "org.freedesktop.login1.Manager KillUserProcesses")
    yield lab
    bed.down()


@pytest.mark.parametrize(("may", "place"), [
    ("", "/system.slice/qwen-rig-long-"),  # its user has sudo
    ("mv /etc/sudoers.d/testbed /root; loginctl enable-linger dev", "/app.slice/qwen-rig-long-"),
    ("loginctl disable-linger dev", ""),
], ids=["by-sudo", "lingering", "neither"])
def test_a_users_job_outlives_its_session_where_systemd_lets_it(lab: Lab, may: str, place: str) -> None:
    """logind ends all that a session leaves behind. Where nothing is allowed, that is said, and the job begun again."""
    lab.on(HOST, f"{may or ':'}; rm -f /var/tmp/go-*")
    before = len(journal(lab, HOST, "/home/dev"))
    name = may.partition(" ")[0] or "sudo"
    run = Controller(lab, f"logout-{name}", "-y", "tests/e2e/long_job.py", **waits(name))
    until(lambda: len(journal(lab, HOST, "/home/dev")) > before, run.said)
    session = lab.on(HOST, "loginctl --no-legend list-sessions | awk '$3 == \"dev\" { print $1 }'").split()
    assert len(session) == 1 and place in lab.on(HOST, "cat /proc/$(pgrep -of 'job.sh supervise')/cgroup")
    assert cut(lab, HOST)
    until(lambda: session[0] not in lab.on(HOST, "loginctl --no-legend list-sessions").split(), run.said)
    if not place:
        until(lambda: len(journal(lab, HOST, "/home/dev")) > before + 1, run.said)
    go(lab, name)
    assert run.end() == 0, run.said()
    rows = [row[0] for row in journal(lab, HOST, "/home/dev")[before:]]
    assert rows == (["start", "end"] if place else ["start", "start", "end"]), run.said()
    assert ("cut off (logind ends it with the connection (KillUserProcesses=yes))" in run.said()) == (not place)


def test_an_upgrade_under_way_is_waited_for_and_a_refused_reboot_is_told(lab: Lab) -> None:
    """Debian's own unit upgrades while we apply; then systemd refuses the reboot, as for an inhibitor of somebody's."""
    lab.on(HOST, "mv /root/testbed /etc/sudoers.d; systemctl mask -q --runtime reboot.target; "
                 "systemctl start --no-block apt-daily-upgrade.service")
    until(lambda: lab.on(HOST, "ls /run/upgrading 2>/dev/null || true"))
    run = Controller(lab, "upgrading", "-y", "deploy/5090.py")
    until(lambda: "waits for unattended-upgr (pid" in run.said() or run.process.poll() is not None, run.said)
    lab.on(HOST, "touch /run/upgraded")
    assert run.end() == 1, run.said()
    said = " ".join(run.said().replace("│", " ").split())
    assert "apt is locked by unattended-upgr (pid" in said and said.count("which holds apt's lock") == 1, run.said()
    assert "the host refused to reboot: Call to Reboot failed" in said, run.said()
    assert lab.on(HOST, "dpkg-query -W -f '${Version}' slow; dpkg --audit") == "2", "the upgrade came to its end"


def test_it_reboots_by_systemd_once_apt_is_free_and_converges(lab: Lab) -> None:
    boot = lab.on(HOST, "systemctl unmask -q --runtime reboot.target; cat /proc/sys/kernel/random/boot_id")
    run = Controller(lab, "reboots", "-y", "deploy/5090.py")
    with lab.bed.holding_apt_lock(HOST):
        until(lambda: "waits for unattended-upgr (pid" in run.said() or run.process.poll() is not None, run.said)
        assert lab.on(HOST, "cat /proc/sys/kernel/random/boot_id") == boot, "not while packages are half there"
    assert run.end() == 0, run.said()
    assert lab.on(HOST, "cat /proc/sys/kernel/random/boot_id; cat /proc/1/comm").split()[1] == "systemd"
    assert lab.on(HOST, "cat /proc/sys/kernel/random/boot_id") != boot
    assert lab.on(HOST, "nvidia-smi --query-gpu=driver_version --format=csv,noheader").strip() == "580.95.05"
    made = json.loads(lab.on(HOST, "cat /home/dev/miniforge3/envs/qwen-train/.rig/verification.json"))
    assert made["overall"] in ("pass", "partial"), made
    before = lab.bed.execs(HOST)
    again = lab.deploy("-y")
    assert again.code == 0 and f"No changes. {HOST} matches." in again.stderr, again.stderr
    assert lab.bed.execs(HOST) == before + 1
