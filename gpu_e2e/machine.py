"""The machine as a host of its own: a venv for the product, an SSH server, an index of its own packages, a conda.

Everything lies below one work folder, with a HOME and keys of its own. As root, sshd needs its account and /run/sshd:
`down` removes what `up` has added.
"""

from __future__ import annotations

import getpass
import math
import os
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from string import Template

REPO = Path(__file__).resolve().parent.parent
HERE = Path(__file__).resolve().parent
HOST = "card"
PASSED_ON = ("NCCL_", "NVSHMEM_", "TORCH_SYMM_MEM_")  # a provider's network: jobs get these as they are
SYSTEM = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ACCOUNT = "sshd:x:109:65534::/run/sshd:/usr/sbin/nologin\n"
PASSWD = Path("/etc/passwd")
SSHD = """Port $port
ListenAddress 127.0.0.1
HostKey $ssh/host_key
AuthorizedKeysFile $ssh/id_ed25519.pub
PidFile none
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
StrictModes no
MaxStartups 50:30:100
MaxSessions 50
Subsystem sftp internal-sftp
SetEnv $environment
"""
LAB = """defaults:
  user: $user
  key: $ssh/id_ed25519
  port: $port
  known_hosts: $ssh/known_hosts
  stack: ./device.yml
  python: "$python"
  flash_attn: "off"
  source_pip_index: http://127.0.0.1:$http/simple/
  source_conda_channel: http://127.0.0.1:$http/conda
  mirrors: "off"
hosts:
  $host: {address: 127.0.0.1}
"""
STACK = """name: device
summary: what this machine has, repacked as wheels; for a trial on a real card
standin: false
python: "$python"
pythons: ["$python"]
torch: {release: "$torch", cuda: "$cuda", archs: [$archs], cxx11abi: $abi, glibc: "2.28", source: the machine's torch}
pins: {torch: {version: "$torch", source: the machine}, transformers: {version: "$transformers", source: the machine}}
unpinned: []
lock: device.lock.txt
sizes: device.sizes.yml
exclude_newer: "2026-11-20T00:00:00Z"
sdists: []
rebuild: [torch, triton, "nvidia-*"]
import_gate: from trl import SFTTrainer
model: Qwen3
disk: {env_mib: 9000, cache_mib: 9000}
deviations: []
"""
STANDIN = """name: device
summary: a STAND-IN for the rehearsal on a machine without a card; it trains nothing
standin: true
python: "$python"
pythons: ["$python"]
torch: null
cuda: "12.8"
pins: {packaging: {version: "$packaging", source: the machine}}
unpinned: []
lock: device.lock.txt
sizes: device.sizes.yml
exclude_newer: "2026-11-20T00:00:00Z"
sdists: []
rebuild: [packaging]
import_gate: from packaging import version
disk: {env_mib: 300, cache_mib: 50}
deviations: []
"""
ASK_TORCH = ("import torch, importlib.metadata as m; print(torch.__version__.split('+')[0], torch.version.cuda, "
             "','.join(a for a in torch.cuda.get_arch_list() if a.startswith('sm_')), "
             "str(torch._C._GLIBCXX_USE_CXX11_ABI).lower(), m.version('transformers'))")


@dataclass(frozen=True)
class Machine:
    """Where everything lies, and which Python has torch."""

    work: Path
    kit: Path
    torch_python: str
    roots: list[str]
    model: dict[str, int]  # by what the model that is trained differs from Qwen3-0.6B's shape
    until: float = math.inf  # the end of this call, by time.monotonic()
    port: int = 2222
    http: int = 8078

    @property
    def product(self) -> Path:
        return self.work / "product"

    @property
    def home(self) -> Path:
        """The controller's HOME."""
        return self.work / "home"

    @property
    def host_home(self) -> Path:
        """HOME of who logs in."""
        return self.work / "host"

    @property
    def base_python(self) -> str:
        """The interpreter that the torch Python's venv was made of, if one was: a venv of a venv leads nowhere."""
        return self.ask("import sys; print(sys._base_executable)")

    def ask(self, program: str) -> str:
        """What a program prints under the Python that has torch."""
        made = subprocess.run([self.torch_python, "-c", program], check=True, capture_output=True, text=True)
        return made.stdout.strip()

    def environment(self) -> dict[str, str]:
        """Of the product's commands: nothing of the machine's own Python, its own HOME."""
        return {"HOME": str(self.home), "PATH": f"{self.work}/ctl/bin:{SYSTEM}", "COLUMNS": "120", "LANG": "C.UTF-8",
                "PYTHONUNBUFFERED": "1"}


def env(machine: Machine, name: str = "qwen-train") -> Path:
    """Where an env of the host's lies."""
    return machine.host_home / "miniforge3/envs" / name


def up(machine: Machine) -> None:
    """Bring the host up; what stands already stays, so that a second call goes on from there."""
    for folder in (machine.home, machine.host_home, machine.work / "ssh", machine.work / "site"):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not (machine.work / "ctl").exists():
        _product(machine)
    if not (machine.product / "device.lock.txt").exists():
        _packages(machine)
    if not (machine.host_home / "miniforge3").exists():
        _conda(machine)
    if not _answers(machine.http):
        _server("index", machine, [sys.executable, "-m", "http.server", str(machine.http), "--bind", "127.0.0.1",
                                   "--directory", str(machine.work / "site")], {})
    if not _answers(machine.port):
        _sshd(machine)
    _inventory(machine)


def down(machine: Machine) -> None:
    """End the servers, and take sshd's account away where `up` has added one."""
    for path in machine.work.glob("*.pid"):
        with suppress(ProcessLookupError, ValueError):
            os.killpg(int(path.read_text()), signal.SIGTERM)
        path.unlink()
    if (machine.work / "account-added").exists():
        PASSWD.write_text(PASSWD.read_text().replace(ACCOUNT, ""))
        (machine.work / "account-added").unlink()


def _product(machine: Machine) -> None:
    """The repository's files, and a venv with the wheels that were brought along."""
    keep_out = shutil.ignore_patterns(".*", "*.egg-info", machine.work.name, machine.kit.name)
    shutil.copytree(REPO, machine.product, symlinks=True, ignore=keep_out, dirs_exist_ok=True)
    if not (machine.kit / "product").exists():  # a rehearsal: what runs this has the product
        (machine.work / "ctl").symlink_to(sys.prefix)
        return
    made = machine.work / "ctl.new"
    subprocess.run([machine.base_python, "-m", "venv", "--without-pip", str(made)], check=True)
    wheels = [str(path) for path in sorted((machine.kit / "product").glob("*.whl"))]
    subprocess.run([machine.torch_python, "-m", "pip", "--python", str(made / "bin/python"), "install", "-q",
                    "--no-index", "--no-compile", *wheels], check=True)
    site = next(made.glob("lib/python3.*/site-packages"))
    (site / "qwen_rig_clone.pth").write_text(f"{machine.product}\n")  # as `pip install -e` does
    for script in made.glob("bin/*"):  # they name the folder that they were made in
        if script.is_file() and not script.is_symlink() and script.read_bytes().startswith(b"#!"):
            script.write_bytes(script.read_bytes().replace(str(made).encode(), str(machine.work / "ctl").encode()))
    made.rename(machine.work / "ctl")


def _packages(machine: Machine) -> None:
    """The machine's own packages as wheels, their index, their lock, and the stack."""
    lock = machine.product / "device.lock.txt"
    subprocess.run([machine.torch_python, str(HERE / "repack.py"), str(machine.work / "site/files"), f"{lock}.new",
                    str(machine.kit / "packages"), *machine.roots], check=True)
    if "torch" in machine.roots:
        torch, cuda, archs, abi, transformers = machine.ask(ASK_TORCH).split()
        text = Template(STACK).substitute(python=_python(machine), torch=torch, cuda=cuda, abi=abi,
                                          archs=archs.replace(",", ", "), transformers=transformers)
    else:
        text = Template(STANDIN).substitute(python=_python(machine), packaging=machine.ask(
            "import packaging; print(packaging.__version__)"))
    (machine.product / "device.yml").write_text(text)
    (machine.product / "device.sizes.yml").write_text("{}\n")
    Path(f"{lock}.new").rename(lock)


def add_packages(machine: Machine, folder: Path) -> None:
    """Packages that came later join the index that hosts ask."""
    from .repack import digest, index  # it needs packaging, which a machine's own Python may lack

    for path in folder.iterdir():
        shutil.copy(path, machine.work / "site/files" / path.name)
    index([(path, digest(path)) for path in folder.iterdir()], machine.work / "site/simple")


def _conda(machine: Machine) -> None:
    """The stand-in for conda, and a channel without packages."""
    made = machine.host_home / "miniforge3.new"
    for folder in ("bin", "conda-meta", "envs"):
        (made / folder).mkdir(parents=True, exist_ok=True)
    pip = machine.ask("import os, pip; print(os.path.dirname(pip.__file__))")
    text = (HERE / "conda.sh").read_text().replace("@PYTHON@", machine.base_python).replace("@PIP@", pip)
    (made / "bin/conda").write_text(text)
    (made / "bin/conda").chmod(0o755)
    (made / "bin/python").symlink_to(machine.base_python)
    (made / "conda-meta/conda-26.3.2-py312_0.json").write_text('{"name": "conda", "version": "26.3.2"}')
    (made / "conda-meta/history").touch()
    for subdir in ("linux-64", "noarch"):
        (machine.work / "site/conda" / subdir).mkdir(parents=True, exist_ok=True)
        (machine.work / "site/conda" / subdir / "repodata.json").write_text(
            f'{{"info": {{"subdir": "{subdir}"}}, "packages": {{}}, "packages.conda": {{}}}}')
    made.rename(machine.host_home / "miniforge3")


def _sshd(machine: Machine) -> None:
    """An SSH server on loopback: the machine's own program, else the kit's."""
    ssh, theirs = machine.work / "ssh", shutil.which("sshd", path=SYSTEM)
    if not (ssh / "id_ed25519").exists():
        subprocess.run([str(machine.work / "ctl/bin/python"), str(HERE / "keys.py"), str(ssh / "host_key"),
                        str(ssh / "id_ed25519")], check=True)
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
        if not any(line.startswith("sshd:") for line in PASSWD.read_text().splitlines()):
            (machine.work / "account-added").touch()
            with PASSWD.open("a") as file:
                file.write(ACCOUNT)
    given = {"PATH": f"{Path(machine.base_python).parent}:{SYSTEM}", "HOME": str(machine.host_home),
             **{name: value for name, value in os.environ.items() if name.startswith(PASSED_ON)}}
    smi = shutil.which("nvidia-smi")
    if smi:
        given["PATH"] += f":{Path(smi).parent}"
    (ssh / "sshd_config").write_text(Template(SSHD).substitute(
        port=machine.port, ssh=ssh, environment=" ".join(f'"{name}={value}"' for name, value in given.items())))
    kit = machine.work / "sshd"
    if not theirs and not kit.exists():
        with tarfile.open(machine.kit / "sshd.tar.xz") as archive:
            archive.extractall(kit)  # our own, made by kit.py
    libraries = [str(kit / each) for each in ("lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu")]
    _server("sshd", machine, [theirs or str(kit / "usr/sbin/sshd"), "-D", "-e", "-f", str(ssh / "sshd_config")],
            {} if theirs else {"LD_LIBRARY_PATH": ":".join(libraries)})


def _server(name: str, machine: Machine, argv: list[str], more: dict[str, str]) -> None:
    """Start a server in a process session of its own, and wait until it answers."""
    port = machine.port if name == "sshd" else machine.http
    with (machine.work / f"{name}.log").open("ab") as log:
        started = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                                   env={**os.environ, **more})
    (machine.work / f"{name}.pid").write_text(str(started.pid))
    for _ in range(100):
        if _answers(port):
            return
        if started.poll() is not None:
            break
        time.sleep(0.1)
    raise RuntimeError(f"{name} doesn't answer: {(machine.work / f'{name}.log').read_text()[-500:]}")


def _answers(port: int) -> bool:
    with socket.socket() as one:
        one.settimeout(2)
        return one.connect_ex(("127.0.0.1", port)) == 0


def _python(machine: Machine) -> str:
    return machine.ask("import sys; print('%d.%d' % sys.version_info[:2])")


def _inventory(machine: Machine) -> None:
    (machine.product / "inventories/lab.yml").write_text(Template(LAB).substitute(
        user=getpass.getuser(), ssh=machine.work / "ssh", port=machine.port, http=machine.http, host=HOST,
        python=_python(machine)))
