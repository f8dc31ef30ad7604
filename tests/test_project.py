"""A project: what `qwen-rig init` writes, the version that it carries, where a run takes its files from."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import paramiko
import pytest

from qwen_rig import __version__, cli, exits, knobs, project
from qwen_rig.errors import RigError
from qwen_rig.hostkeys import KnownHosts, default, sha256

REPO = Path(__file__).parents[1]
ENTRIES = ("config.py", "deploy/*.py", "facts/__init__.py", "group_data/*.py", "inventories/*.py",
           "inventories/*.example.yml")
MODULES = ("__init__.py", "planning.py", "provision.py")  # of deploy/, and no entries
FORMER = Path("deploy/verify.py")  # in clones alone: certify.py's name in 0.1.0


def stamp(folder: Path, version: str | None) -> None:
    """Let a project's config.py be of another version, or of none."""
    config = folder / "config.py"
    line = f'QWEN_RIG = "{version}"' if version else "# none"
    config.write_text(re.sub("^QWEN_RIG = .*", line, config.read_text(), flags=re.MULTILINE))


@pytest.fixture
def made(tmp_path: Path) -> Path:
    project.create(tmp_path / "lab")
    return tmp_path / "lab"


def test_a_clone_is_of_the_packages_version() -> None:
    assert f'QWEN_RIG = "{__version__}"' in (REPO / "config.py").read_text()
    assert f"## {__version__}" in (REPO / "CHANGELOG.md").read_text()


@pytest.mark.skipif(not (REPO / ".git").exists() or not shutil.which("git"), reason="git tells files from a user's own")
def test_the_package_has_each_file_that_a_user_names_or_edits_by_a_link() -> None:
    told = subprocess.run(["git", "ls-files", *(f":(glob){entry}" for entry in ENTRIES)], cwd=REPO, text=True,
                          capture_output=True, check=True).stdout.split()
    files = {Path(name) for name in told} - {Path("deploy", name) for name in MODULES} - {FORMER}
    template = {path.relative_to(project.TEMPLATE) for path in project.TEMPLATE.rglob("*")
                if path.is_file() and "__pycache__" not in path.parts}
    assert template == files
    assert all((project.TEMPLATE / path).samefile(REPO / path) for path in files), "one original each"


def test_init_writes_what_is_edited_or_named_and_says_what_comes_next(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    for name in ("deep/lab", "empty"):
        assert cli.main(["init", name]) == exits.OK
        said = capsys.readouterr().out
        for words in (f"made by qwen-rig {__version__}", f"cd {name}", "edit inventories/lab.yml", "qwen-rig plan"):
            assert words in said
        folder = tmp_path / name
        assert project.is_project(folder)
        assert (folder / "deploy" / "certify.py").is_file() and not (folder / FORMER).exists()
        assert not [path for path in folder.rglob("*") if path.is_symlink() or path.name == "__pycache__"]
        assert (folder / "inventories" / "lab.yml").read_text() == (REPO / "inventories/lab.example.yml").read_text()
        assert all(len(path.read_text().splitlines()) <= 30 for path in folder.glob("deploy/*.py"))


def test_init_leaves_a_folder_that_holds_something_alone(
        made: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(made)
    hosts = made / "inventories" / "lab.yml"
    hosts.write_text("hosts: {mine: {}}\n")
    before = {path: path.read_bytes() for path in made.rglob("*") if path.is_file()}
    for name in (".", str(made), "config.py", "config.py/lab"):
        assert cli.main(["init", name]) == exits.FAILED
        told = capsys.readouterr()
        assert told.out == "" and len(told.err.splitlines()) == 1, told.err
    assert {path: path.read_bytes() for path in made.rglob("*") if path.is_file()} == before


def test_the_project_is_the_current_folder_else_the_clone(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(made)
    assert project.find() == made
    monkeypatch.chdir(made / "inventories")
    assert project.find() == REPO


def test_a_projects_own_host_keys_are_named_by_no_file(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept, key = KnownHosts(default(made)), paramiko.RSAKey.generate(1024)
    accepts = f"qwen-rig host-keys accept vast-1 {sha256(key)}"
    assert kept.command("vast-1", key) == f"{accepts} --file {kept.path}"
    monkeypatch.chdir(made)
    assert kept.command("vast-1", key) == accepts


@pytest.mark.parametrize("version", ["0.1.0", "99.0", None])
def test_another_versions_project_is_refused_in_one_line(made: Path, monkeypatch: pytest.MonkeyPatch,
                                                         version: str | None) -> None:
    stamp(made, version)
    monkeypatch.chdir(made)
    with pytest.raises(RigError, match=f"{version or 'before 0.2.0'}, the installed package is {__version__}") as error:
        project.find()
    assert "\n" not in str(error.value)


def test_config_py_ends_the_run_before_another_versions_modules_are_imported() -> None:
    project.check_version(__version__)
    with pytest.raises(SystemExit, match=r"^qwen-rig: the project is of qwen-rig 0\.1\.0, the installed package is "):
        project.check_version("0.1.0")
    first = next(line for line in (REPO / "config.py").read_text().splitlines() if "qwen_rig" in line)
    assert first == "from qwen_rig.project import check_version"


def test_a_knob_that_the_data_lack_has_the_packages_default() -> None:
    assert set(knobs.defaults()) == knobs.NAMES
    found = knobs.read({"python": "3.11"}, "host a")
    assert (found.python, found.stack, found.conda_prefix) == ("3.11", "guide", None)
    assert found.flash_attn_unverified is False


@pytest.mark.parametrize("first", ["facts", "qwen_rig.facts"])
def test_a_facts_short_name_leads_to_the_same_class(made: Path, first: str) -> None:
    """In a clone, where facts/ is a folder of modules, and in a project of init's, where it is one file."""
    program = (f"import sys; sys.path.append('.'); import {first}.gpu, facts.gpu, facts.probe, qwen_rig.facts.gpu\n"
               "assert facts is qwen_rig.facts and facts.gpu is qwen_rig.facts.gpu\n"
               "assert not [n for n, m in sys.modules.items() if n.startswith('facts.') and m.__name__ == n]")
    for folder in (REPO, made):
        subprocess.run([sys.executable, "-c", program], cwd=folder, check=True)
