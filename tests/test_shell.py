"""The shell libraries (qwen_rig/shell/), run here by every shell that is here."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from qwen_rig.program import Program, lines, load

SHELLS = [[name, "sh"][: 1 + (name == "busybox")] for name in ("dash", "bash", "busybox") if shutil.which(name)]


@pytest.fixture(params=SHELLS, ids=lambda words: str(words[0]))
def shell(request: pytest.FixtureRequest) -> list[str]:
    words: list[str] = request.param
    return words


def ran(shell: list[str], library: str, text: str, stdin: str = "", path: Path | None = None, **variables: str) -> str:
    """The standard output of some lines after a library."""
    call = Program(load(f"shell/{library}.sh").text + text)(**variables)
    environment = {"PATH": f"{path}:{os.environ['PATH']}" if path else os.environ["PATH"], "http_proxy": "http://own"}
    done = subprocess.run([*shell, "-c", call.text], input=call.stdin(stdin), text=True, capture_output=True,
                          env=environment, timeout=30)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(("proxy", "becomes"), [("", "http://own -"), ("direct", "- -"),
                                                ("http://p:1/$(id)", "http://p:1/$(id) http://p:1/$(id)")])
def test_the_proxy_knob_is_the_variables_of_what_follows(shell: list[str], proxy: str, becomes: str) -> None:
    text = "proxies\nsh -c 'echo \"${http_proxy--} ${HTTPS_PROXY--}\"'"
    assert ran(shell, "network", text, proxy=proxy, secret_tunnel="") == f"{becomes}\n"


def test_a_proxy_script_is_read_where_there_is_one(shell: list[str], tmp_path: Path) -> None:
    (tmp_path / "a turbo").write_text("false\necho noise $unset\nexport way=fast\n")
    text = 'way=""; turbo ""; turbo "$file"; echo "$way"; turbo "$file.gone"; false; echo never'
    call = Program(load("shell/network.sh").text + text)(file=str(tmp_path / "a turbo"))
    done = subprocess.run([*shell, "-c", call.text], input=call.stdin(), text=True, capture_output=True)
    assert (done.returncode, done.stdout) == (1, "fast\n"), "and the shell is strict again"


def test_the_data_disk_s_folders_are_made_and_named(shell: list[str], tmp_path: Path) -> None:
    place = lines([f"TMPDIR={tmp_path}/a disk/tmp", f"HF_HOME={tmp_path}/hub"])
    text = "place\ncat\nsh -c 'ls -d \"$TMPDIR\" \"$HF_HOME\"'"
    assert ran(shell, "place", text, "input\n", place=place) == f"input\n{tmp_path}/a disk/tmp\n{tmp_path}/hub\n"
    assert ran(shell, "place", "place; echo done", place="") == "done\n"


@pytest.mark.parametrize(("apt", "says"), [
    ("", "did a b\ndid c*\n"),
    ('case $* in *" c"*) echo "no such c"; exit 100 ;; esac', "did a b\nno such c\n"),
])
def test_groups_of_packages_in_turn_to_the_first_that_apt_refuses(shell: list[str], apt: str, says: str,
                                                                  tmp_path: Path) -> None:
    fake = tmp_path / "apt-get"
    fake.write_text(f"#!/bin/sh\ncase $* in *check) exit 0 ;; esac\n{apt}\n"
                    "while [ \"$1\" != install ]; do shift; done; shift\necho \"did $*\"\n")
    fake.chmod(0o755)
    (tmp_path / "cc").touch()
    text = f"cd {tmp_path}\n(packages) || :"
    groups = lines(["a b", "c*", "d"] if apt else ["a b", "c*"])
    assert ran(shell, "apt", text, path=tmp_path, groups=groups, lock_s="1") == says


def test_a_list_that_is_no_list_is_refused() -> None:
    with pytest.raises(ValueError, match="more than one line"):
        lines(["a", "b\nc"])


@pytest.mark.parametrize(("has", "groups", "branch", "installs"), [
    ([580, 595], ["nvidia-driver-pinning-{branch}", "nvidia-open"], "580", "nvidia-driver-pinning-580\nnvidia-open\n"),
    ([595, 610], ["nvidia-driver-pinning-{branch}", "nvidia-open"], "580", "nvidia-driver-pinning-595\nnvidia-open\n"),
    ([550, 575], ["nvidia-driver-pinning-{branch}", "nvidia-open"], "580", "nvidia-driver-pinning-575\nnvidia-open\n"),
    ([550, 620], ["nvidia-driver-pinning-{branch}", "cuda-drivers"], "580", "takes a branch from 570 to 610"),
    ([], ["nvidia-driver-pinning-{branch}", "nvidia-open"], "580", "nvidia-driver-pinning-580\nnvidia-open\n"),
    ([595], ["nvidia-open-{branch}"], "580", "nvidia-open-580\n"),  # other packages than that one tell nothing
])
def test_the_branch_is_one_that_the_repository_has(shell: list[str], tmp_path: Path, has: list[int], groups: list[str],
                                                   branch: str, installs: str) -> None:
    """The wanted one, else the next, else the last that serves; without any, apt's own word on the wanted one."""
    fake = tmp_path / "apt-cache"
    names = " ".join(["nvidia-driver-pinning", *(f"nvidia-driver-pinning-{n}" for n in has),
                      *(f"nvidia-driver-pinning-{n}.95.05" for n in has)])
    fake.write_text(f'#!/bin/sh\nfor name in {names}; do case $name in "$2"*) echo "$name" ;; esac; done\n')
    fake.chmod(0o755)
    stubs = "write() { :; }; no_tunnel() { :; }; proxies() { :; }; through() { :; }; update() { :; }\n" \
        "packages() { printf '%s\\n' \"$groups\"; }\n"
    call = Program(stubs + load("deploy/driver/install.sh").text)(
        preferences="x", pins="x", groups=lines(groups), headers="", branch=branch, least="570", last="610")
    done = subprocess.run([*shell, "-c", call.text], input=call.stdin(), text=True, capture_output=True, timeout=30,
                          env={"PATH": f"{tmp_path}:{os.environ['PATH']}"})
    assert installs in (done.stdout if done.returncode == 0 else done.stderr)
    assert (done.returncode == 0) is (installs == done.stdout), done.stderr
