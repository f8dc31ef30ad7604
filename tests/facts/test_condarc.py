"""conda's configuration files: what counts of them, and what must not travel."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest

from qwen_rig.facts import _condarc
from qwen_rig.facts.probe import HostState

from .test_shell import _run, each_shell

BLOCK = """\
# a comment: with: colons
channels:
  - conda-forge
channel_alias: "https://mirror.example/anaconda/cloud/"   # the lab's
custom_channels:
  conda-forge: https://mirror.example/anaconda/cloud
  'pytorch':  'http://mirror.example/cloud'
  private: https://me:hunter2@mirror.example/x
envs_dirs:
- ~/own envs
-   $HOME/envs
  - /nowhere/envs
create_default_packages:
  - numpy
"""
INLINE = ("envs_dirs: [ \"~/envs\", '/data/envs' ] # two\r\ncustom_channels: {conda-forge: https://other.example/c, "
          "b: ftp://x}\nchannel_alias: https://conda.example/t/to-ken/\n")


def read(shell: list[str], home: Path, *files: Path) -> tuple[dict[str, Any], str]:
    body = (f"nl='\n'; HOME={shlex.quote(str(home))}; owned() {{ :; }}\n{_condarc.SHELL}\n"
            f"condarc {' '.join(shlex.quote(str(file)) for file in files)}\n{_condarc.SECTIONS['condarc']}")
    said = subprocess.run([*shell, "-c", body], capture_output=True, text=True)
    return _condarc.read(said.stdout), said.stdout + said.stderr


@each_shell
def test_both_ways_of_writing_are_read_and_credentials_stay_there(shell: list[str], tmp_path: Path) -> None:
    (tmp_path / "envs").mkdir()
    (tmp_path / "block").write_text(BLOCK)
    (tmp_path / "inline").write_text(INLINE)
    found, said = read(shell, tmp_path, tmp_path / "block", tmp_path / "absent")
    assert found == {"channel_alias": "https://mirror.example/anaconda/cloud/", "envs_dirs": [f"{tmp_path}/envs"],
                     "custom_channels": {"conda-forge": "https://mirror.example/anaconda/cloud", "private": "***",
                                         "pytorch": "http://mirror.example/cloud"}}
    assert "hunter2" not in said and "numpy" not in said
    found, said = read(shell, tmp_path, tmp_path / "inline", tmp_path / "block")
    assert found["channel_alias"] == "***" and "to-ken" not in said, "the file of more weight comes first"
    assert found["custom_channels"]["conda-forge"] == "https://other.example/c" and "b" not in found["custom_channels"]
    assert found["envs_dirs"] == [f"{tmp_path}/envs"]


@pytest.mark.parametrize("line", [
    "alias file://relative", "alias javascript://h", "alias https://", "alias https://a b", "custom x",
    "custom conda-forge ../x", "alias https://[::1", "fit relative", "fit /a\x1b[31m", "envs /unfit", "nonsense"])
def test_what_is_no_address_and_no_folder_counts_for_nothing(line: str) -> None:
    assert _condarc.read(line) == _condarc.EMPTY


@each_shell
def test_an_env_where_condarc_sends_envs_is_the_one_that_conda_activates(shell: list[str], tmp_path: Path) -> None:
    for folder in ("miniforge3/conda-meta", "miniforge3/envs/qwen-train", "data/qwen-train",
                   "data/.qwen-train-0a1b2c3d4e5f-1"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / ".condarc").write_text(f"envs_dirs:\n  - {tmp_path}/data\n")
    state = HostState().process(_run(HostState().command(), shell, HOME=str(tmp_path), CONDA_EXE=""))
    assert state["condarc"]["envs_dirs"] == [f"{tmp_path}/data"]
    assert state["env"]["path"] == f"{tmp_path}/data/qwen-train"
    assert [row["path"] for row in state["generations"]] == [
        f"{tmp_path}/data/.qwen-train-0a1b2c3d4e5f-1", f"{tmp_path}/data/qwen-train",
        f"{tmp_path}/miniforge3/envs/qwen-train"]
