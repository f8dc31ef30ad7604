"""The wheel, as a stranger has it: installed into a venv of its own, used from a folder of `qwen-rig init`.

The venv borrows the dependencies of the one that runs the tests; qwen_rig itself is the wheel's. The host is the
testbed's.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from qwen_rig import __version__, exits
from tests import instance
from tests.e2e.conftest import Lab, Run
from tests.inventories.conftest import Port, port  # noqa: F401  (port is a fixture)
from tests.test_project import stamp

REPO = Path(__file__).parents[2]
UNBUILT = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "dist")


@dataclass
class Installed:
    """A venv that has the wheel, and a project made by its `qwen-rig init`; HOME is an empty folder."""

    new: set[str]  # what the installation has added to site-packages
    bin: Path
    project: Path

    def run(self, *command: str, cwd: Path | None = None) -> Run:
        home = self.project.parent / "home"
        env = {"HOME": str(home), "PATH": f"{self.bin}:{os.environ['PATH']}", "COLUMNS": "160", "LANG": "C.UTF-8",
               "XDG_STATE_HOME": str(home / "state")}
        done = subprocess.run([str(self.bin / command[0]), *command[1:]], cwd=cwd or self.project, env=env, text=True,
                              capture_output=True, timeout=300, stdin=subprocess.DEVNULL)
        return Run(done.returncode, done.stdout, done.stderr)


def run(*command: str | Path) -> None:
    done = subprocess.run([*map(str, command)], text=True, capture_output=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository: a build leaves its own folders in it."""
    return shutil.copytree(REPO, tmp_path_factory.mktemp("tree") / "qwen-rig", symlinks=True, ignore=UNBUILT)


@pytest.fixture(scope="module")
def wheel(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", folder, tree)
    (made,) = folder.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    folder = tmp_path_factory.mktemp("installed")
    run(sys.executable, "-m", "venv", folder / "venv")
    (site,) = folder.glob("venv/lib/python3*/site-packages")
    before = set(os.listdir(site))
    run(folder / "venv/bin/pip", "install", "-q", "--no-deps", "--no-index", wheel)
    new = set(os.listdir(site)) - before
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    script = Path(sys.executable).with_name("pyinfra").read_text()  # as pip would have written it for the venv
    (folder / "venv/bin/pyinfra").write_text(script.replace(sys.executable, f"{folder}/venv/bin/python", 1))
    (folder / "venv/bin/pyinfra").chmod(0o755)
    (folder / "home").mkdir()
    made = Installed(new, folder / "venv" / "bin", folder / "lab")
    assert made.run("qwen-rig", "init", "lab", cwd=folder).code == exits.OK
    return made


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as opened:
        return {name: opened.read(name) for name in opened.namelist() if not name.endswith("/RECORD")}


def test_the_wheel_has_every_file_of_the_package_and_nothing_else(tree: Path, wheel: Path) -> None:
    found = contents(wheel)
    assert {name.split("/")[0] for name in found} == {"qwen_rig", f"qwen_rig-{__version__}.dist-info"}
    package = {str(Path(folder, file).relative_to(tree)) for folder, _, files in
               os.walk(tree / "qwen_rig", followlinks=True) for file in files if "__pycache__" not in folder}
    assert {name for name in found if name.startswith("qwen_rig/")} == package
    assert all(found[name] == (tree / name).read_bytes() for name in package)
    assert {"qwen_rig/py.typed", "qwen_rig/host/job.sh", "qwen_rig/data/stacks/guide.yml",
            "qwen_rig/deploy/5090.py"} <= package


def test_a_wheel_out_of_the_sdist_is_the_same(tree: Path, wheel: Path, tmp_path: Path) -> None:
    run(Path(sys.executable).with_name("uv"), "build", "-q", "--out-dir", tmp_path, tree)  # the wheel from the sdist
    assert len(list(tmp_path.glob("*.tar.gz"))) == 1
    assert contents(tmp_path / wheel.name) == contents(wheel)


def test_one_top_level_name_and_two_scripts(installed: Installed, tmp_path: Path) -> None:
    assert installed.new == {"qwen_rig", f"qwen_rig-{__version__}.dist-info"}
    where = installed.run("python", "-c", "import qwen_rig; print(qwen_rig.__file__)").stdout
    assert where.startswith(str(installed.bin.parent)), "the wheel's, and not the clone's"
    for command in (["qwen-rig"], ["rig"], ["python", "-m", "qwen_rig"]):
        assert installed.run(*command, "--version", cwd=tmp_path).stdout == f"qwen-rig {__version__}\n"


def test_in_any_folder_what_needs_no_hosts_works_and_what_does_says_where_to_begin(installed: Installed,
                                                                                   tmp_path: Path) -> None:
    assert installed.run("qwen-rig", "--help", cwd=tmp_path).stdout.startswith("usage: qwen-rig ")
    assert "Qwen2.5-7B" in installed.run("qwen-rig", "fits", "--memory", "32607", "--json", cwd=tmp_path).stdout
    assert installed.run("qwen-rig", "certificate", "list", cwd=tmp_path).code == exits.OK
    assert "no log" in installed.run("qwen-rig", "doctor", "--log", "no log", cwd=tmp_path).stderr
    bundle = installed.run("qwen-rig", "bundle", "there", "--data", "stack=guide-literal", cwd=tmp_path)
    assert bundle.code == exits.FAILED and "never published for CUDA 12.8" in bundle.stderr, bundle.stderr
    for verb in (["plan"], ["doctor", "lab-01"], ["host-keys", "list"]):
        told = installed.run("qwen-rig", *verb, cwd=tmp_path)
        assert told.code == exits.FAILED and told.stderr == (
            f"qwen-rig: this folder is not a qwen-rig project · {tmp_path} · qwen-rig init lab makes one; cd lab\n")


def test_another_versions_project_is_one_line_and_nobody_is_dialled(installed: Installed, tmp_path: Path,
                                                                    port: Port) -> None:  # noqa: F811
    shutil.copytree(installed.project, tmp_path / "old")
    (tmp_path / "old/inventories/lab.yml").write_text(f"hosts: {{a: {{address: 127.0.0.1, port: {port.number}}}}}\n")
    stamp(tmp_path / "old", "0.1.9")
    for command in (["qwen-rig", "plan"], ["qwen-rig", "doctor", "a"],
                    ["pyinfra", "inventories/lab.py", "deploy/5090.py", "--dry"],
                    ["pyinfra", "inventories/lab.py", "fact", "facts.gpu.Gpus", "--json"]):
        told = installed.run(*command, cwd=tmp_path / "old")
        lines = [line for line in told.stderr.splitlines() if line and not line.startswith("--> ")]
        assert told.code == exits.FAILED and told.stdout == "" and len(lines) == 1, told.stderr
        assert f"the project is of qwen-rig 0.1.9, the installed package is {__version__} · " in lines[0]
    assert not port.dialled


@pytest.fixture(scope="module")
def lab(installed: Installed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A host, put into the project's lab.yml: the one file that is edited."""
    if os.geteuid() != 0 or not sys.platform.startswith("linux"):
        pytest.skip("real SSH hosts on this machine take root on Linux")
    from qwen_rig.catalog.stack import load_stack
    from testbed import HostSpec, Testbed, demo

    demo.fetch(load_stack("standin"))
    with Testbed(instance("package")) as bed:
        hosts: list[Any] = bed.up([HostSpec("wheel-01", driver="580.95.05:open", nouveau=False)])
        made = Lab(bed, hosts, tmp_path_factory.mktemp("clone"))
        (installed.project / "inventories" / "lab.yml").write_text(yaml.safe_dump(made.data))
        yield made


@pytest.mark.testbed
def test_one_yaml_is_edited_and_a_host_is_planned(installed: Installed, lab: Lab) -> None:
    planned = installed.run("qwen-rig", "plan")
    assert planned.code == exits.CHANGES and "Env qwen-train" in planned.stdout, planned
    dry = installed.run("pyinfra", "inventories/lab.py", "deploy/5090.py", "--dry")
    assert dry.code == 0 and "Traceback" not in dry.stderr, dry.stderr
    summary = [line for line in planned.stdout.splitlines() if line.startswith("Plan: ")]
    assert len(summary) == 1 and summary[0] in dry.stderr.splitlines()
    assert summary[0] in lab.deploy("--dry").stderr.splitlines(), "and in a clone"


@pytest.mark.testbed
def test_facts_go_by_their_short_names_as_in_a_clone(installed: Installed, lab: Lab) -> None:
    command = ["fact", "facts.gpu.Gpus", "--json"]
    told = installed.run("pyinfra", "inventories/lab.py", *command)
    assert told.code == 0, told.stderr
    ((name, hosts),) = json.loads(told.stdout).items()
    assert name == "facts.gpu.Gpus"
    assert [gpu["name"] for gpu in hosts["wheel-01"]] == ["NVIDIA GeForce RTX 5090"]
    assert lab.pyinfra(*command).stdout == told.stdout


@pytest.mark.testbed
def test_a_knob_that_an_older_group_data_lacks_has_the_packages_default(installed: Installed, lab: Lab) -> None:
    defaults = installed.project / "group_data" / "all.py"
    text = defaults.read_text()
    defaults.write_text("".join(line for line in text.splitlines(keepends=True) if not line.startswith("flash_attn_")))
    planned = installed.run("qwen-rig", "plan")
    defaults.write_text(text)
    assert planned.code == exits.CHANGES and "Env qwen-train" in planned.stdout, planned
