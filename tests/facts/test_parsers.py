"""Odd, cut and hostile text: a parser says what it knows, or one line of what it doesn't."""

from __future__ import annotations

import pytest
from pyinfra.api.exceptions import FactProcessError

from qwen_rig.facts import _cgroup, _conda, _disk, _driver, _host, _kind, _sh, _smi, _users
from qwen_rig.facts.gpu import PciGpus
from qwen_rig.facts.host import Host
from qwen_rig.facts.probe import EMPTY, HostState
from qwen_rig.facts.state import State

KERNEL = "version=Linux version 6.1.0-18-amd64 (debian-kernel@lists) (gcc-12) #1 SMP\n"
DRIVER = "driver=1\nuserland=1\n"


@pytest.mark.parametrize(("text", "own_driver", "kind", "virt"), [
    (KERNEL + "pid1=systemd\nsystemd=1\nmodules=1\ndriver=1\ncgroup=0::/init.scope\n", False, "bare_metal", None),
    (KERNEL + "hypervisor_flag=1\nsys_vendor=QEMU\nsystemd=1\nmodules=1\n", True, "vm", "qemu"),
    (KERNEL + "detect_vm=kvm\ndetect_container=none\n", False, "vm", "kvm"),
    (KERNEL + "sys_vendor=Amazon EC2\nproduct_name=g7e.metal-48xl\n", False, "bare_metal", None),
    (KERNEL + "dockerenv=1\nhypervisor_flag=1\n", False, "container", "docker"),
    (KERNEL + "containerenv=1\n", False, "container", "podman"),
    (KERNEL + "environ=lxc\n", False, "container", "lxc"),
    (KERNEL + "cgroup=5:memory:/kubepods/besteffort/pod1/abc\n", False, "container", "kubernetes"),
    (KERNEL + "cgroup=0::/system.slice/docker-0123abcd.scope\n", False, "container", "docker"),
    (KERNEL + "cgroup=0::/user.slice/my-dockerish-things\n", False, "bare_metal", None),
    ("version=Linux version 5.15.167.4-microsoft-standard-WSL2\nsystemd=1\n", False, "wsl", "wsl"),
    # A microVM: no engine's mark, yet its driver comes from outside.
    (KERNEL + DRIVER + "pid1=agent\nhypervisor_flag=1\n", False, "container", "vm-other"),
    (KERNEL + DRIVER + "pid1=systemd\nsystemd=1\nmount=/usr/bin/nvidia-smi\n", False, "container", None),
    # The same, where this host's own packages brought the driver; or a small init of its own.
    (KERNEL + DRIVER + "pid1=agent\nhypervisor_flag=1\n", True, "vm", "vm-other"),
    (KERNEL + DRIVER + "pid1=init\nhypervisor_flag=1\nmount=/proc/driver/nvidia\n", False, "vm", "vm-other"),
    # The packages were just removed, and their module still runs.
    (KERNEL + "driver=1\npid1=sh\nhypervisor_flag=1\n", False, "vm", "vm-other"),
    # systemd's guess from a pid namespace alone is no container.
    (KERNEL + "pid1=init\ndetect_container=container-other\ndetect_vm=kvm\n", False, "vm", "kvm"),
])
def test_kind(text: str, own_driver: bool, kind: str, virt: str | None) -> None:
    found = _kind.read(text, own_driver)
    assert (found["kind"], found["virt"]) == (kind, virt)
    assert found["kind_evidence"]


@pytest.mark.parametrize(("words", "cores", "mib"), [
    ("", 8.0, 64000),
    ("memory.max: max\ncpu.max: max 100000\n", 8.0, 64000),
    ("memory.max: max\nmemory.max: 4294967296\ncpu.max: 250000 100000\ncpu.max: max 100000\n", 2.5, 4096),
    ("memory.limit_in_bytes: 9223372036854771712\nmemory.limit_in_bytes: 8589934592\n"
     "cpu.cfs_quota_us: 400000\ncpu.cfs_period_us: 100000\n"
     "cpu.cfs_quota_us: -1\ncpu.cfs_period_us: 100000\n", 4.0, 8192),
])
def test_limits(words: str, cores: float, mib: int) -> None:
    machine = "MemTotal:       65536000 kB\nCpus_allowed_list:\t0-127\nonline: 0-7\nprocessors: 8\n"
    assert _cgroup.read(machine + words) == (mib, cores)


def test_limits_of_a_machine_without_sysfs() -> None:
    assert _cgroup.read("MemTotal: 2048000 kB\nprocessors: 3\n") == (2000, 3.0)
    with pytest.raises(ValueError, match="MemTotal"):
        _cgroup.read("")


DF = """Filesystem              1024-blocks     Used Available Capacity Mounted on
overlay                   264212084 22812524  83578388      22% /
tmpfs                      24684092        0  24684092       0% /dev/shm
tmpfs                       2097152        0   2097152       0% /tmp
/dev/sdb1                 104857600 99999999         0     100% /mnt/my data
/dev/loop3                    65536    65536         0     100% /snap/core/1
nas:/x                   1048576000        -         -       -  /mnt/broken
"""
MOUNTS = ("overlay / overlay rw 0 0\ntmpfs /dev/shm tmpfs rw 0 0\ntmpfs /tmp tmpfs rw 0 0\n"
          "/dev/sdb1 /mnt/my\\040data ext4 rw 0 0\n")


def test_disks_are_those_one_can_write_to() -> None:
    disks = _disk.read(DF, MOUNTS)
    assert [(d["mount"], d["fstype"], d["free_mib"]) for d in disks] == [
        ("/", "overlay", 81619), ("/mnt/my data", "ext4", 0), ("/tmp", "tmpfs", 2048)]
    assert [d["mount"] for d in _disk.read(DF, MOUNTS, "/tmp\n/mnt/my data\n/proc\n") if d["writable"]] == [
        "/mnt/my data", "/tmp"]
    with pytest.raises(ValueError, match="no file system at /"):
        _disk.read("", "")


@pytest.mark.parametrize(("text", "want"), [
    ("unsupported", "unsupported"), ("   6   0   0   0   1", "enabled"), ("   6   0   0   0   0", "disabled"),
    ("", "unknown"), ("   6   0", "unknown"), ("   6   0   0   0   9", "unknown")])
def test_secure_boot(text: str, want: str) -> None:
    assert _host.secure_boot(text) == want


def test_who_holds_what() -> None:
    files = "file 77 2049 /var/lib/dpkg/lock-frontend\nfile 78 2049 /var/lib/dpkg/lock\n"
    text = files + "lock 08:01:12 9 cron\nlock 08:11:78 7 other-disk\nlock 08:01:78 2180 unattended-upgr\n"
    assert _users.apt_lock(text) == {"path": "/var/lib/dpkg/lock", "pid": 2180, "name": "unattended-upgr"}
    assert _users.apt_lock(files + "lock 08:01:12 9 cron\nlock 08:11:78 7 other-disk\n") is None
    overlay = _users.apt_lock("file 77 44 /var/lib/dpkg/lock\nlock 00:2b:77 9 apt-get\n")
    assert overlay == {"path": "/var/lib/dpkg/lock", "pid": 9, "name": "apt-get"}
    assert _users.apt_lock("") is None
    table = ("|    0   N/A  N/A      1234      C   /usr/bin/python3                 1234MiB |\n"
             "|  0      5678      G   /usr/lib/xorg/Xorg     40MiB |\n"
             "|    0    1    0       9012    M+C   python    N/A |\n"
             "| N/A   40C    P0             97W /  700W |       0MiB / 143771MiB |      0%      Default |\n")
    assert _users.gpu_users("1234 ann python3\n99 root nvidia-persiste\n", table) == [
        {"pid": 1234, "user": "ann", "name": "python3"}, {"pid": 5678, "user": "unknown", "name": "Xorg"},
        {"pid": 9012, "user": "unknown", "name": "python"}]
    assert _users.display_manager("/proc/800/comm:gdm3\n") == "gdm3"
    assert _users.display_manager("") is None


def test_a_driver_text_nobody_knows_is_an_error_not_health() -> None:
    with pytest.raises(ValueError, match="says 'Hello'"):
        _driver.proc_version("Hello")
    assert _smi.failure("all is well") is None
    assert _smi.failure("all is well", 9) == "driver_not_loaded"
    assert _smi.public("gpu_access_blocked") == "unknown"
    assert _smi.excerpt("a\n b" + "c" * 400, 10) == "a bcccccc…"


@pytest.mark.parametrize(("cell", "want"), [
    ("32607 MiB", 32607), ("38 %", 38), ("700.00 W", 700), ("0", 0), ("[N/A]", None), ("N/A", None), ("", None),
    ("[Not Supported]", None), ("[Unknown Error]", None), ("ERR!", None), ("Unknown", None), ("twelve", None)])
def test_a_cell_is_never_just_int(cell: str, want: int | None) -> None:
    assert _smi.number(cell) == want


def test_a_record_that_is_no_json_costs_only_itself() -> None:
    text = ("##generation /c/envs/.q-0a1b2c3d4e5f-1\n##record env\n{\"a\": 1}\n\n##record verification\n{cut\n"
            "##generation /c/envs/.q-0a1b2c3d4e5f-2\n")
    found, problem = _conda.read_generations(text)
    assert [(g["name"], g["complete"], g["records"]["env"], g["records"]["verification"]) for g in found] == [
        (".q-0a1b2c3d4e5f-1", True, {"a": 1}, None), (".q-0a1b2c3d4e5f-2", False, None, None)]
    assert problem is not None and problem.startswith("/c/envs/.q-0a1b2c3d4e5f-1/.rig/verification.json: ")


@pytest.mark.parametrize(("records", "want"), [
    ('##record verify\n{"overall": "pass"}\n', {"overall": "pass", "file": "verify.json"}),
    ('##record verification\n{"overall": "fail"}\n##record verify\n{"overall": "pass"}\n', {"overall": "fail"}),
    ('##record verification\n{"overall": "fail"}\n', {"overall": "fail"}),
    ("", None),
])
def test_a_verification_is_read_by_its_former_name_where_there_is_none_by_todays(
        records: str, want: dict[str, str] | None) -> None:
    found, problem = _conda.read_generations(f"##generation /c/envs/.q-0a1b2c3d4e5f-1\n{records}")
    assert (found[0]["records"]["verification"], problem) == (want, None)
    assert set(found[0]["records"]) == set(_conda.RECORDS)


def test_a_record_by_its_former_name_is_named_where_it_is_damaged() -> None:
    _, problem = _conda.read_generations("##generation /c/envs/.q-0a1b2c3d4e5f-1\n##record verify\n{cut\n")
    assert problem is not None and problem.startswith("/c/envs/.q-0a1b2c3d4e5f-1/.rig/verify.json: ")
    name = ".q-0a1b2c3d4e5f-1"
    raw = {"generations": [{"name": name, "path": f"/c/envs/{name}", "complete": True, "records": {
        "verification": {"overall": [], "file": "verify.json"}}}]}
    assert list(State.of(raw).problems) == ["/c/envs/.q-0a1b2c3d4e5f-1/.rig/verify.json"]


def _conda_at(prefix: str, sound: bool = True, writable: bool = True) -> dict[str, object]:
    return {"prefix": prefix, "sound": sound, "writable": writable}


@pytest.mark.parametrize(("condas", "envs", "asked", "first", "env"), [
    ([_conda_at("/a"), _conda_at("/b")], ["/b/envs/q"], None, "/b", "/b/envs/q"),
    ([_conda_at("/a"), _conda_at("/b")], ["/b/envs/q"], "/a", "/a", None),
    ([_conda_at("/a", sound=False), _conda_at("/b")], ["/a/envs/q"], None, "/a", None),
    ([_conda_at("/a", sound=False)], ["/a/envs/q"], None, "/a", "/a/envs/q"),
    ([_conda_at("/a", writable=False)], ["/home/x/.conda/envs/q"], None, "/a", "/home/x/.conda/envs/q"),
    ([], [], None, None, None),
])
def test_the_conda_that_holds_the_env_comes_first(condas: list[dict[str, object]], envs: list[str], asked: str | None,
                                                  first: str | None, env: str | None) -> None:
    ordered, chosen = _conda.arrange(condas, [{"path": path} for path in envs], asked)
    assert (ordered[0]["prefix"] if ordered else None, chosen["path"] if chosen else None) == (first, env)


def test_one_strange_part_costs_no_host() -> None:
    state = HostState().process(["##rig pci", "slot=0000:01:00.0", "##rig cuda", "##nvcc /opt/cuda",
                                 "Segmentation fault", "##rig driver.proc", "Hello"])
    assert state["pci_gpus"] == [] and "has no class or id" in state["problems"]["pci_gpus"]
    assert state["cuda"] == [] and "/opt/cuda/bin/nvcc" in state["problems"]["cuda"]
    assert state["driver"]["error"] == "unknown" and "Hello" in state["problems"]["driver"]
    assert state["host"]["kind"] == "unknown" and state["problems"]["host.os"]
    assert state["problems"]["probe"] == "the probe's output breaks off"
    assert state.keys() == EMPTY.keys() and state["driver"].keys() == EMPTY["driver"].keys()


@pytest.mark.parametrize("lines", [
    [], [""], ["##rig "], ["##rig end"], ["Last login: yesterday", "##rig host.os", "=", "ID="]])
def test_the_composite_never_raises(lines: list[str]) -> None:
    state = HostState().process(lines)
    assert state.keys() == EMPTY.keys()
    assert HostState.default()["problems"]


def test_alone_a_fact_says_in_one_line_what_it_cannot_read() -> None:
    with pytest.raises(FactProcessError, match="has no class or id"):
        PciGpus().process(["##rig pci", "slot=0000:01:00.0"])
    with pytest.raises(FactProcessError, match=r"host\.os: the probe's output lacks host\.os") as caught:
        Host().process(["nothing"])
    assert "\n" not in str(caught.value)


def test_sections_stand_apart() -> None:
    found = _sh.sections(["motd", "##rig a", "1", "", "2\r", "##rig b", "##rig end"])
    assert found == {"a": "1\n\n2", "b": "", "end": ""}
    assert _sh.pairs("a=1\nb\nc = x=y\na=2") == {"a": "1", "c": "x=y"}
