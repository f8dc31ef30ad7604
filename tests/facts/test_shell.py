"""The probe in real shells on this very machine, and on a make-believe host: files, a PATH, as root also mounts."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest

from qwen_rig.facts import _dist
from qwen_rig.facts.conda import CondaInstalls
from qwen_rig.facts.cuda import CudaToolkits
from qwen_rig.facts.driver import NvidiaDriver
from qwen_rig.facts.env import EnvPackages
from qwen_rig.facts.gpu import Gpus, PciGpus
from qwen_rig.facts.host import Host
from qwen_rig.facts.probe import EMPTY, TEXT_MAX, HostState
from tests import HANG_S

HOST = Path(__file__).parents[2] / "qwen_rig" / "host"
SHELLS = [shell for shell in (["dash"], ["bash"], ["bash", "--posix"], ["busybox", "sh"]) if shutil.which(shell[0])]
each_shell = pytest.mark.parametrize("shell", SHELLS, ids=" ".join)
CSV = "index, name, uuid, pci.bus_id, memory.total [MiB]"
ROW = "0, NVIDIA GeForce RTX 5090, GPU-11111111-2222-3333-4444-555555555555, 00000000:01:00.0, 32607 MiB"
HEAD = "| NVIDIA-SMI 580.95.05     Driver Version: 580.95.05     CUDA Version: 13.0     |"


def _run(command: str, shell: list[str], **env: str) -> list[str]:
    done = subprocess.run([*shell, "-c", command], capture_output=True, env={**os.environ, **env}, timeout=HANG_S,
                          check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    return done.stdout.decode().splitlines()


def _script(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n" + text)
    path.chmod(0o755)
    return path


def _smi(folder: Path, refused: tuple[str, ...] = (), **cells: str) -> dict[str, str]:
    """An nvidia-smi that refuses some fields, and the PATH that finds it."""
    refusals = "".join(
        f'  *{field}*) echo \'Field "{field}" is not a valid field to query.\'; exit 2 ;;\n' for field in refused)
    columns = "".join(f"  *{name}*) head=\"$head, {name}\"; row=\"$row, {cell}\" ;;\n" for name, cell in cells.items())
    _script(folder / "nvidia-smi", f"""case $1 in
{refusals}  -L) echo 'GPU 0: NVIDIA GeForce RTX 5090 (UUID: GPU-11111111-2222-3333-4444-555555555555)' ;;
  --query-gpu=*) head='{CSV}' row='{ROW}'
    case $1 in
{columns}    esac
    case $1 in *mig.mode.current*) head="$head, mig.mode.current" row="$row, [N/A]" ;; esac
    echo "$head"; echo "$row" ;;
  '') echo '{HEAD}' ;;
esac
""")
    return {"PATH": f"{folder}:{os.environ['PATH']}"}


@each_shell
def test_the_composite_on_this_machine(shell: list[str]) -> None:
    state = HostState().process(_run(HostState().command(files=("/etc/passwd", "/nope", "/etc")), shell))
    assert state.keys() == EMPTY.keys() and state["host"].keys() == EMPTY["host"].keys()
    assert state["problems"] == {}
    assert state["host"]["user"]["uid"] == os.getuid()
    assert state["host"]["kernel"] == os.uname().release and state["host"]["tools"]["timeout"] is True
    assert state["host"]["cores"] > 0 and state["host"]["memory_mib"] > 100
    assert len(state["files"]["/etc/passwd"]) == 64
    assert (state["files"]["/nope"], state["files"]["/etc"]) == (None, "unreadable")
    small = Path("/etc/passwd").stat().st_size <= TEXT_MAX
    assert state["texts"] == ({"/etc/passwd": Path("/etc/passwd").read_text()} if small else {})
    json.dumps(state)


@each_shell
@pytest.mark.parametrize(("refused", "compute"), [
    ((), "12.0"), (("compute_cap",), None), (("compute_cap", "mig"), None)])
def test_an_old_driver_is_asked_again_in_the_same_command(shell: list[str], refused: tuple[str, ...],
                                                          compute: str | None, tmp_path: Path) -> None:
    env = _smi(tmp_path, refused, compute_cap="12.0")
    gpus = Gpus().process(_run(Gpus().command(), shell, **env))
    assert gpus == [{"index": 0, "name": "NVIDIA GeForce RTX 5090", "uuid": "GPU-11111111-2222-3333-4444-555555555555",
                     "pci_bus_id": "00000000:01:00.0", "memory_mib": 32607, "compute_capability": compute}]
    state = HostState().process(_run(HostState().command(), shell, **env))
    assert state["gpus"] == [{**gpus[0], "mig": None}]
    assert (state["driver"]["error"], state["driver"]["cuda_version"]) == (None, "13.0")
    assert state["host"]["tools"]["nvidia-smi"] is True


def test_a_driver_that_refuses_every_query_still_lists(tmp_path: Path) -> None:
    env = _smi(tmp_path, ("uuid",))
    assert [gpu["name"] for gpu in Gpus().process(_run(Gpus().command(), ["sh"], **env))] == ["NVIDIA GeForce RTX 5090"]
    assert NvidiaDriver().process(_run(NvidiaDriver().command(), ["sh"], **env))["error"] == "bad_query"


@pytest.mark.parametrize(("text", "stream", "rc", "error"), [
    ("Failed to initialize NVML: Driver/library version mismatch", 1, 18, "driver_library_mismatch"),
    ("Failed to initialize NVML: Driver/library version mismatch", 2, 18, "driver_library_mismatch"),
    ("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.", 1, 9, "driver_not_loaded"),
    ("No devices were found", 2, 6, "no_devices"),
    ("Killed", 2, 137, "unknown"),
    ("", 1, 0, "unknown"),
])
def test_failures_on_either_stream(text: str, stream: int, rc: int, error: str, tmp_path: Path) -> None:
    _script(tmp_path / "nvidia-smi", f"echo {shlex.quote(text)} >&{stream}\nexit {rc}\n")
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    assert NvidiaDriver().process(_run(NvidiaDriver().command(), ["sh"], **env))["error"] == error
    assert Gpus().process(_run(Gpus().command(), ["sh"], **env)) == []


def _stdlib(env: Path) -> None:
    """What tells that a Python finds its standard library."""
    (env / "lib" / "python3.10" / "encodings").mkdir(parents=True)
    for name in ("encodings/__init__.py", *(f"{module}.py" for module in _dist.MODULES.split())):
        (env / "lib" / "python3.10" / name).write_text("x")


@each_shell
def test_conda_env_and_generations_by_files(shell: list[str], tmp_path: Path) -> None:
    prefix = tmp_path / "mini forge"
    name = ".qwen-train-0a1b2c3d4e5f-1"
    _script(prefix / "bin" / "python", "")
    (prefix / "bin" / "conda").write_text(f"#!/bin/sh\n'''exec' \"{prefix}/bin/python\" \"$0\" \"$@\"\n")
    (prefix / "bin" / "conda").chmod(0o755)
    (prefix / "conda-meta").mkdir()
    (prefix / "conda-meta" / "conda-26.3.2-py312_0.json").write_text('{"channel": "https://x/conda-forge/linux-64"}')
    site = prefix / "envs" / name / "lib" / "python3.10" / "site-packages"
    (site / "torch").mkdir(parents=True)
    (site / "torch" / "version.py").write_text("__version__ = '2.8.0+cu128'\ncuda: Optional[str] = '12.8'\n")
    (site / "torch-2.8.0.dist-info").mkdir()
    (site / "torch-2.8.0.dist-info" / "METADATA").touch()
    (site / "torch-2.8.0.dist-info" / "RECORD").write_text(
        "torch/version.py,sha256=x,57\r\ntorch/__pycache__/version.cpython-310.pyc,,\n../../../bin/torchrun,sha256=x,9\n")
    _stdlib(prefix / "envs" / name)
    (site / "half_gone-1.0.dist-info").mkdir()  # no METADATA: what a broken uninstall leaves
    _script(prefix / "envs" / name / "bin" / "python", "")
    (prefix / "envs" / "qwen-train").symlink_to(name)
    rig = prefix / "envs" / name / ".rig"
    rig.mkdir()
    (rig / "env.json").write_text('{\n "lock": "0a1b2c3d4e5f"\n}')
    (rig / "training.json").write_text("{cut")
    (rig / "verify.json").write_text('{"overall": "pass"}\n')  # as release 0.1.0 named it
    (rig / "accelerate.yaml").write_text("debug: false\n")
    (prefix / "envs" / ".qwen-train-ffffffffffff-2").mkdir()
    (prefix / "envs" / os.fsdecode(b"latin-\xe9") / "conda-meta").mkdir(parents=True)  # pyinfra would choke on it

    env = {"HOME": str(tmp_path), "CONDA_EXE": ""}
    state = HostState().process(_run(HostState().command(conda_prefix=f"{prefix}/"), shell, **env))
    conda = state["conda"][0]
    assert conda == {"prefix": str(prefix), "version": "26.3.2", "kind": "miniforge", "sound": True, "writable": True,
                     "envs": ["base", "latin-", "qwen-train"]}
    assert CondaInstalls().process(_run(CondaInstalls().command(str(prefix)), shell, **env))[0] == conda
    assert state["env"] == {
        "path": f"{prefix}/envs/qwen-train", "target": name, "python": "3.10", "gone": None,
        "packages": {"torch": "2.8.0"}, "duplicates": [], "torn": {},
        "torch": {"version": "2.8.0+cu128", "cuda": "12.8"}}
    assert EnvPackages().process(_run(EnvPackages().command(f"{prefix}/envs/qwen-train"), shell)) == state["env"]
    first, second = state["generations"]
    assert (first["name"], first["complete"], first["records"]["env"]) == (name, True, {"lock": "0a1b2c3d4e5f"})
    assert first["beside"] == {"accelerate.yaml": sha256(b"debug: false\n").hexdigest()} and second["beside"] == {}
    assert (second["complete"], second["records"]["env"]) == (False, None)
    assert first["records"]["verification"] == {"overall": "pass", "file": "verify.json"}
    assert list(state["problems"]) == ["generations"] and "training.json" in state["problems"]["generations"]

    (rig / "verification.json").write_text('{"overall": "fail"}')
    again = HostState().process(_run(HostState().command(conda_prefix=f"{prefix}/"), shell, **env))
    assert again["generations"][0]["records"]["verification"] == {"overall": "fail"}, "today's name stands first"

    mark = prefix.with_name(f"{prefix.name}.unfinished-qwen-rig") / "begun"  # our installer was cut off there
    mark.parent.mkdir()
    mark.touch()
    assert str(prefix) not in [row["prefix"] for row in
                               CondaInstalls().process(_run(CondaInstalls().command(str(prefix)), shell, **env))]
    mark.unlink()
    (prefix / "bin" / "python").unlink()  # the prefix was moved, or half removed
    assert CondaInstalls().process(_run(CondaInstalls().command(str(prefix)), shell, **env))[0]["sound"] is False
    assert EnvPackages().process(_run(EnvPackages().command("/nowhere"), shell)) is None


@each_shell
def test_each_compiler_once(shell: list[str], tmp_path: Path) -> None:
    real = tmp_path / "cuda-12.8"
    (real / "include").mkdir(parents=True)
    _script(real / "bin" / "nvcc", "echo 'Cuda compilation tools, release 12.8, V12.8.93'\n")
    _script(tmp_path / "bin" / "nvcc", f'exec {real}/bin/nvcc "$@"\n')
    (tmp_path / "link").symlink_to(real)
    broken = _script(tmp_path / "broken" / "bin" / "nvcc", "echo Segmentation fault; exit 139\n")
    env = {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}", "CUDA_HOME": f"{tmp_path}/link",
           "CUDA_PATH": str(broken.parents[1])}
    every = CudaToolkits().process(_run(CudaToolkits().command(), shell, **env))
    found = [row for row in every if row["path"].startswith(str(tmp_path))]
    assert found == [{"path": str(real), "release": "12.8", "version": "12.8.93"},
                     {"path": str(tmp_path / "broken"), "release": None, "version": None}]
    state = HostState().process(_run(HostState().command(), shell, **env))
    assert "broken/bin/nvcc does not answer" in state["problems"]["cuda"]
    assert all(row["release"] for row in state["cuda"])


@pytest.mark.parametrize("where", [
    {"CUDA_HOME": "link"}, {"CUDA_PATH": "cuda-12.8"}, {"PATH": "bin"}, {"PATH": "links"}])
def test_a_build_finds_the_compilers_that_its_plan_was_made_with(tmp_path: Path, where: dict[str, str]) -> None:
    nvcc = _script(tmp_path / "cuda-12.8" / "bin" / "nvcc", "echo 'Cuda compilation tools, release 12.8, V12.8.93'\n")
    (tmp_path / "cuda-12.8" / "include").mkdir()
    _script(tmp_path / "bin" / "nvcc", f'exec {nvcc} "$@"\n')  # as Debian's
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "nvcc").symlink_to(nvcc)
    (tmp_path / "link").symlink_to(nvcc.parents[1])
    env = {name: f"{tmp_path}/{place}" for name, place in where.items()}
    env["PATH"] = ":".join(filter(None, (env.get("PATH"), os.environ["PATH"])))
    planned = CudaToolkits().process(_run(CudaToolkits().command(), ["sh"], **env))
    asked = [sys.executable, "-c", "import json, flash_ready; print(json.dumps(flash_ready.nvccs()))"]
    found = json.loads(_run(shlex.join(asked), ["sh"], **env, PYTHONPATH=str(HOST))[-1])
    assert sorted(found) == sorted([row["release"], row["path"]] for row in planned if row["release"])
    assert ["12.8", str(nvcc.parents[1])] in found


def _as_host(setup: str, command: str) -> list[str]:
    """Runs a probe where `setup` has mounted what this machine lacks; the mounts end with the process."""
    script = f"mount --make-rprivate / && {setup}\nexec sh -c {shlex.quote(command)}"
    return _run(f"exec unshare --mount sh -ec {shlex.quote(script)}", ["sh"])


def _can_mount() -> bool:
    tried = ["unshare", "--mount", "mount", "-t", "tmpfs", "none", "/mnt"]
    return bool(shutil.which("unshare")) and not subprocess.run(tried, capture_output=True, check=False).returncode


needs_mounts = pytest.mark.skipif(not _can_mount(), reason="needs root and mounts of its own")


@needs_mounts
def test_pci_driver_and_modules_by_mounts() -> None:
    setup = """
mount -t tmpfs none /proc/driver; mkdir /proc/driver/nvidia
cd /proc/driver/nvidia
echo 'NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.82.09  Release Build  (x)  Tue' >version
mount -t tmpfs none /sys/bus/pci/devices; cd /sys/bus/pci/devices
for d in 0000:01:00.0,0x030000,0x2b85 0000:01:00.1,0x040300,0x22e8; do IFS=,; set -- $d; IFS=' '
  mkdir $1; echo 0x10de >$1/vendor; echo $2 >$1/class; echo $3 >$1/device; echo 8 >$1/current_link_width; done
ln -s /sys/bus/pci/drivers/nouveau 0000:01:00.0/driver
mount -t tmpfs none /sys/module; mkdir /sys/module/nouveau
cd /"""
    gpu = {"slot": "0000:01:00.0", "device_id": "10de:2b85", "subsystem_id": None, "class": "0300", "driver": "nouveau",
           "pcie_width": 8, "pcie_width_max": None}
    assert PciGpus().process(_as_host(setup, PciGpus().command())) == [gpu]
    state = HostState().process(_as_host(setup, HostState().command()))
    assert state["pci_gpus"] == [gpu] and state["problems"] == {}
    assert (state["driver"]["loaded_version"], state["driver"]["flavour"]) == ("580.82.09", "open")
    assert (state["driver"]["nouveau_loaded"], state["driver"]["error"]) == (True, "unknown")
    assert "no nvidia-smi" in state["driver"]["excerpt"]


@needs_mounts
def test_who_holds_apts_lock_and_the_gpu() -> None:
    """A real fcntl lock and a really open device file, by a child of the namespace."""
    hold = ("import fcntl, time; a = open('/var/lib/dpkg/lock-frontend', 'w'); fcntl.lockf(a, fcntl.LOCK_EX); "
            f"g = open('/dev/nvidia0'); print(flush=True); time.sleep({HANG_S})")
    setup = f"""
mount -t tmpfs none /var/lib/dpkg; touch /var/lib/dpkg/lock /var/lib/dpkg/lock-frontend
mount -t tmpfs none /dev; mknod -m 666 /dev/null c 1 3; touch /dev/nvidia0
mkfifo /tmp/.rig-test-$$; {sys.executable} -c {shlex.quote(hold)} >/tmp/.rig-test-$$ & holder=$!
read -r ready </tmp/.rig-test-$$; rm /tmp/.rig-test-$$; export holder
"""
    state = HostState().process(_as_host(setup, HostState().command().replace("exit 0", "kill $holder; exit 0")))
    assert state["host"]["apt_lock"]["path"] == "/var/lib/dpkg/lock-frontend"
    assert state["host"]["apt_lock"]["name"].startswith("python")
    assert state["host"]["apt_lock"]["pid"] in [user["pid"] for user in state["host"]["gpu_users"]]


@pytest.mark.parametrize("fact", ["gpu.Gpus", "driver.NvidiaDriver", "cuda.CudaToolkits", "probe.HostState"])
def test_pyinfra_prints_pure_json(fact: str) -> None:
    done = subprocess.run([sys.executable, "-m", "pyinfra", "@local", "fact", f"facts.{fact}", "--json"], text=True,
                          capture_output=True, cwd=Path(__file__).parents[2], timeout=HANG_S, check=False)
    assert done.returncode == 0, done.stderr
    (name, hosts), = json.loads(done.stdout).items()
    assert name == f"facts.{fact}" and hosts.keys() == {"@local"}


def test_pyinfra_hands_arguments_to_the_composite() -> None:
    done = subprocess.run([sys.executable, "-m", "pyinfra", "@local", "fact", "facts.probe.HostState", "files=/nope",
                           "env_name=other", "--json"], text=True, capture_output=True, cwd=Path(__file__).parents[2],
                          timeout=HANG_S, check=False)
    (_, hosts), = json.loads(done.stdout).items()
    assert hosts["@local"]["files"] == {"/nope": None}


@each_shell
def test_the_network_is_read_without_its_passwords(shell: list[str], tmp_path: Path) -> None:
    _script(tmp_path / ".config/pip/pip.conf", "[global]\nindex-url = https://bob:secret@mirror.test/simple\n")
    lines = _run(Host().command(), shell, HOME=str(tmp_path), XDG_CONFIG_HOME="", PIP_INDEX_URL="",
                 TMPDIR=str(tmp_path), http_proxy="http://bob:secret@proxy.test:3128", no_proxy="127.0.0.1,.lan")
    assert "secret" not in "\n".join(lines)
    network = Host().process(lines)["network"]
    assert network["proxies"]["http_proxy"] == "http://***@proxy.test:3128"
    assert network["proxies"]["no_proxy"] == "127.0.0.1,.lan"
    assert (network["pip_index"], network["tmpdir"]) == ("https://***@mirror.test/simple", str(tmp_path))


@each_shell
def test_condas_name_for_an_env_on_a_data_disk_is_no_second_env(shell: list[str], tmp_path: Path) -> None:
    """Neither while that disk is there nor when it is gone; an env of the user's own by that name is one."""
    home, data = tmp_path / "home", tmp_path / "data"
    place, forge = data / "qwen-rig" / "envs", home / "miniforge3"
    for folder in (place / ".qwen-train-0a1b2c3d4e5f-1" / "bin", forge / "conda-meta", forge / "bin", forge / "envs"):
        folder.mkdir(parents=True)
    (forge / "bin" / "conda").write_text("#!/bin/sh\n")
    (place / "qwen-train").symlink_to(".qwen-train-0a1b2c3d4e5f-1")
    (forge / "envs" / "qwen-train").symlink_to(place / "qwen-train")

    def envs(data_dir: Path | None) -> list[str]:
        asked = HostState().command(data_dir=str(data_dir) if data_dir else None)
        text = "\n".join(_run(asked, shell, HOME=str(home)))
        return [line.split()[1] for line in text.splitlines() if line.startswith("##env ")]

    assert envs(data) == [str(place / "qwen-train")]
    data.rename(tmp_path / "gone")
    assert envs(None) == []
    (forge / "envs" / "qwen-train").unlink()
    (forge / "envs" / "qwen-train" / "bin").mkdir(parents=True)
    assert envs(None) == [str(forge / "envs" / "qwen-train")]
