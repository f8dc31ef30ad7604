"""The hosts behave as machines do. Real ssh, sshd, apt, dpkg and CPython; GPUs, NVIDIA's packages, conda EMULATED."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks import noop
from testbed import HostSpec, Testbed, TestbedError, cli, demo, leftovers, net, paths, services
from tests import instance

pytestmark = pytest.mark.testbed

BOOT_ID = "cat /proc/sys/kernel/random/boot_id"
UPTIME = "cut -d. -f1 /proc/uptime"
FOLDER = f"{services.distribution_folder()}/x86_64" if os.path.exists("/usr/bin/apt-get") else ""


def said(bed: Testbed, name: str, command: str) -> str:
    """What a command printed, by the real ssh client; it must succeed."""
    done = bed.ssh(name, command)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


def use_repository(bed: Testbed, name: str) -> None:
    """Configure the emulated NVIDIA repository with its key, as the project does."""
    url = f"{bed.services().nvidia_apt}/{FOLDER}/"
    said(bed, name, f"curl -fsS {url}3bf863cc.pub -o /usr/share/keyrings/n.asc && "
                    f"echo 'deb [signed-by=/usr/share/keyrings/n.asc] {url} /' >/etc/apt/sources.list.d/n.list && "
                    "apt-get -qq update")


def test_logging_in(bed: Testbed) -> None:
    assert said(bed, "bare", "hostname; id -un; tty -s; cat /proc/1/comm").split() == ["bare", "root", "init"]
    assert said(bed, "box", "id -un; sudo -n id -un").split() == ["dev", "root"]
    password = bed.host("small").password
    assert bed.ssh("small", "sudo -n true").returncode != 0
    assert said(bed, "small", f"echo {password} | sudo -S -p '' id -un") == "root"


def test_no_way_out(bed: Testbed) -> None:
    address = bed.host("bare").address
    network = f"{address.rpartition('.')[0]}.0/24"
    assert said(bed, "bare", "ip -4 route") == f"{network} dev eth0 proto kernel scope link src {address}"


def test_reboot_is_a_new_boot_with_the_old_disk(bed: Testbed) -> None:
    before = said(bed, "bare", f"echo kept >/root/kept; echo gone >/run/gone; {BOOT_ID}; {UPTIME}").split()
    begun = time.monotonic()
    with bed.rebooting("bare"):
        bed.ssh("bare", "reboot; sleep 60")
    after = said(bed, "bare", f"{BOOT_ID}; {UPTIME}; cat /root/kept; ls /run/gone 2>/dev/null || true").split()
    assert after[0] != before[0] and after[2:] == ["kept"]
    assert int(after[1]) <= time.monotonic() - begun + 1, "this boot's uptime begins at zero, to a second"


def test_apt_installs_from_the_real_archive(bed: Testbed) -> None:
    text = said(bed, "bare", "apt-get update && apt-get -qq install -y tree 2>&1 && tree --version")
    assert "tree v" in text and "InRelease" in text
    assert said(bed, "bare", "dpkg-query -W -f '${Status}' tree") == "install ok installed"


def test_driver_is_loaded_by_a_reboot_only(bed: Testbed) -> None:
    smi = "nvidia-smi --query-gpu=index,name,memory.total,compute_cap,driver_version --format=csv,noheader,nounits"
    assert "550.90.07" in said(bed, "old", "cat /proc/driver/nvidia/version; /usr/local/cuda/bin/nvcc --version")
    done = bed.ssh("old", smi)
    assert (done.returncode, done.stdout.strip()) == (6, "No devices were found")  # a Blackwell, the closed modules
    use_repository(bed, "old")
    said(bed, "old", "apt-get -qq install -y nvidia-driver-pinning-580 && apt-get -qq install -y nvidia-open")
    assert "cuda-drivers" not in said(bed, "old", "dpkg-query -W -f '${Package} ${db:Status-Abbrev}\\n' | grep ' ii'")
    done = bed.ssh("old", smi)
    assert done.returncode == 18 and "Driver/library version mismatch" in done.stdout
    assert "550.90.07" in said(bed, "old", "cat /sys/module/nvidia/version")
    bed.reboot("old")
    assert said(bed, "old", smi) == "0, NVIDIA GeForce RTX 5090, 32607, 12.0, 580.95.05"
    assert "Open Kernel Module" in said(bed, "old", "cat /proc/driver/nvidia/version")
    assert "Dual MIT/GPL" in said(bed, "old", "modinfo -F license nvidia")


def test_driver_without_headers_builds_no_module(bed: Testbed) -> None:
    use_repository(bed, "bare")
    said(bed, "bare", "apt-get -qq install -y nvidia-driver-pinning-580 && apt-get -qq install -y nvidia-open")
    bed.reboot("bare")
    assert bed.ssh("bare", "nvidia-smi").returncode == 9
    said(bed, "bare", "apt-get -qq install -y linux-headers-$(uname -r)")
    bed.reboot("bare")
    assert said(bed, "bare", "nvidia-smi -L").startswith("GPU 0: NVIDIA GeForce RTX 5090 (UUID: GPU-")
    bed.reset("bare")


def test_gpu_before_any_driver(bed: Testbed) -> None:
    show = "cd /sys/bus/pci/devices; for d in *; do echo $(cd $d; cat vendor device class; readlink driver); done"
    lines = said(bed, "small", show).splitlines()
    assert sum(line.startswith("0x10de 0x2b85 0x030000") and line.endswith("/nouveau") for line in lines) == 2
    assert sum(line.startswith("0x10de 0x22e8 0x040300") for line in lines) == 2
    assert said(bed, "small", "ls -d /sys/module/nouveau; which nvidia-smi || true") == "/sys/module/nouveau"


def test_blacklisted_nouveau_stays_out(bed: Testbed) -> None:
    bed.exec_("small", ["sh", "-c", "echo blacklist nouveau >/etc/modprobe.d/no.conf"], check=True)
    bed.reboot("small")
    assert bed.ssh("small", "ls -d /sys/module/nouveau").returncode != 0


def test_container_has_the_outer_host_s_driver(bed: Testbed) -> None:
    assert said(bed, "box", "ls /.dockerenv /run/.containerenv; cat /proc/1/comm").split()[-1] == "entrypoint"
    assert "580.95.05" in said(bed, "box", "nvidia-smi --version")
    assert "nvidia" not in said(bed, "box", "dpkg-query -W")
    with bed.using_gpu("box", "train", "nosudo") as pid:
        asked = ["nvidia-smi", "--query-compute-apps=pid,process_name,used_memory", "--format=csv,noheader"]
        assert bed.exec_("box", asked).stdout == f"{pid}, train, 512 MiB\n"


def test_small_disk(bed: Testbed) -> None:
    assert int(said(bed, "small", "df -Pm / | awk 'NR==2 {print $2}'")) == 2048


def test_conda_stand_in_holds_a_real_python(bed: Testbed) -> None:
    served = bed.services()
    name = "Miniforge3-26.3.2-3-Linux-x86_64.sh"
    said(bed, "box", f"curl -fsSO {served.miniforge}/{name} && curl -fsS {served.miniforge}/{name}.sha256 | "
                     f"sha256sum -c - && echo '{served.miniforge_sha256}  {name}' | sha256sum -c - && "
                     f"bash {name} -b -p $HOME/forge")
    minor = ".".join(served.python.split()[1].split(".")[:2])
    create = f"~/forge/bin/conda create -y -p ~/forge/envs/x --override-channels -c %s python={minor} pip"
    assert bed.ssh("box", create % "conda-forge").returncode != 0
    assert "404" in bed.ssh("box", create % f"{served.broken}/conda-forge").stderr
    assert bed.ssh("box", "ls ~/forge/envs/x").returncode != 0
    said(bed, "box", create % served.conda_channel)
    assert said(bed, "box", "~/forge/envs/x/bin/python -c 'import ssl, sqlite3, ctypes, lzma, sys; print(sys.prefix)'; "
                            "~/forge/envs/x/bin/pip --version").splitlines()[0] == "/home/dev/forge/envs/x"
    asked = [row["path"] for row in bed.requests() if row["client"] == bed.host("box").address]
    assert any(path.startswith("/conda-forge/linux-64/python-") for path in asked)


def test_execs_are_counted_from_sshd_s_side(bed: Testbed) -> None:
    before = bed.execs("bare")
    for _ in range(3):
        said(bed, "bare", "true")
    bed.exec_("bare", ["true"], check=True)
    assert bed.execs("bare") == before + 3


def test_apt_lock(bed: Testbed) -> None:
    with bed.holding_apt_lock("old", "unattended-upgr") as pid:
        done = bed.ssh("old", "apt-get install -y less")
        assert done.returncode == 100 and f"held by process {pid} (unattended-upgr)" in done.stderr
    said(bed, "old", "apt-get install -y less")


def test_cable(bed: Testbed) -> None:
    bed.cable("old", up=False)
    assert bed.ssh("old", "true").returncode == 255
    bed.cable("old", up=True)
    said(bed, "old", "true")


def test_power_cut(bed: Testbed) -> None:
    before = said(bed, "old", BOOT_ID)
    bed.kill("old")
    assert dict((info.name, on) for info, on in bed.status())["old"] is False
    with pytest.raises(TestbedError, match="is off"):
        bed.exec_("old", ["true"])
    bed.boot("old")
    assert said(bed, "old", BOOT_ID) != before


def test_reset_gives_a_bare_host_at_the_same_address(bed: Testbed) -> None:
    address = bed.host("bare").address
    said(bed, "bare", "touch /etc/mark")
    info = bed.reset("bare", HostSpec("bare", gpu="gtx1080"))
    assert info.address == address and bed.ssh("bare", "ls /etc/mark").returncode != 0
    assert "0x1b80" in said(bed, "bare", "cat /sys/bus/pci/devices/*/device")
    bed.reset("bare", HostSpec("bare"))


@pytest.mark.parametrize("crash", [False, True])
def test_down_leaves_nothing(root: None, crash: bool) -> None:
    mounts = Path("/proc/self/mountinfo").read_text()
    made = Testbed(instance("selftest-down"))
    made.up([HostSpec("a", root_mib=64, driver="580.95.05:open"), HostSpec("b", kind="container")])
    alive = {pid: started for pid in leftovers.processes(made.folder) if (started := _started(pid))}
    links = _indexes(net.names(made.folder))
    assert len(alive) >= 8 and len(links) == 3
    if crash:  # the state is lost, and half of the processes with it
        (made.folder / "state.json").unlink()
        for pid in list(alive)[::2]:
            if Path(f"/proc/{pid}").exists():
                os.kill(pid, signal.SIGKILL)
    made.down()
    made.down()
    assert leftovers.processes(made.folder) == [] and not made.folder.exists()
    assert not links & _indexes(os.listdir("/sys/class/net"))
    assert Path("/proc/self/mountinfo").read_text() == mounts
    assert not [pid for pid, started in alive.items() if _started(pid) == started]
    with pytest.raises(TestbedError, match="is not up"):
        made.hosts()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_takes_the_hosts_down(root: None, number: signal.Signals) -> None:
    """As the demo and the benchmarks run: what is up goes down, and the status is 128 + the number."""
    name = instance("selftest-signal")
    program = ("import time; from testbed.bed import Testbed; from testbed.spec import HostSpec\n"
               "from testbed._shell import end_by_signals\nend_by_signals()\n"
               f"with Testbed({name!r}) as bed: bed.up([HostSpec('a', kind='container')]); print('up', flush=True); "
               "time.sleep(600)")
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, preexec_fn=heed) as one:
        assert one.stdout and one.stdout.readline() == "up\n"
        one.send_signal(number)
        assert one.wait() == 128 + number
    assert not Testbed(name).folder.exists() and leftovers.processes(Testbed(name).folder) == []


def heed() -> None:
    """Let a child heed the signals that nohup, or a shell's &, has it ignore."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".", "-x", "a b"])
def test_an_instance_is_a_name_and_no_path(name: str) -> None:
    with pytest.raises(TestbedError, match="letters, digits"):
        Testbed(name)
    assert cli.main([f"--instance={name}", "down"]) == 1


def test_wrong_usage_is_1_as_2_means_pending_changes_elsewhere(capsys: pytest.CaptureFixture[str]) -> None:
    for main, words in ((cli.main, ["nosuch"]), (cli.main, ["--instance"]), (demo.main, ["-x"]), (noop.main, ["x"])):
        with pytest.raises(SystemExit) as end:
            main(words)
        assert end.value.code == 1 and len(capsys.readouterr().err.splitlines()) == 1


def test_down_means_every_instance_of_this_checkout_and_no_other(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QWEN_RIG_CACHE", str(tmp_path))
    monkeypatch.delenv("QWEN_RIG_TESTBED", raising=False)
    ours, others = ["main", paths.instance("demo"), paths.instance("bench")], ["demo-0a1b2c", "main-0a1b2c"]
    for name in (*ours, *others):
        paths.run_folder(name).mkdir(parents=True)
    assert cli.main(["down"]) == 0
    assert sorted(path.name for path in (paths.cache() / "run").iterdir()) == sorted(others)


def _indexes(links: list[str]) -> set[str]:
    """The kernel's numbers of these links: never given twice, unlike names, which other testbeds use too."""
    paths = [Path("/sys/class/net") / name / "ifindex" for name in links]
    return {path.read_text() for path in paths if path.exists()}


def _started(pid: int) -> str:
    """When a process began, which tells it from a later one of the same number; empty when it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return "" if fields[0] in "ZX" else fields[19]  # a zombie has ended; it waits for this machine's init
    except OSError:
        return ""
