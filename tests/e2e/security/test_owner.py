"""A host with a local user who isn't root and plants things for root to run. Nothing of theirs is run, read or written
to, and the host gets what it needs all the same; each mount as providers make it still serves."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from qwen_rig.catalog.stack import DATA, load_stack
from tests.e2e.conftest import Lab

pytestmark = pytest.mark.testbed
ROOT_MIB = 2048
OPEN = ("/tmp", "/dev/shm", "/var/tmp", "/run/lock", "/data")  # where anybody may make a folder
RAN = "/var/tmp/canary-ran"

# A conda, an env with generations of the wanted lock and records, uv and caches in $1; whatever runs one of them tells.
PLANT = r"""
set -eu
canary() {
  mkdir -p "${1%/*}"
  printf '#!/bin/sh\necho "$0 run by $(id -un)" >>%s\nexit 1\n' "$ran" >"$1"
  chmod 755 "$1"
}
plant() { # a folder as ours would be
  conda=$1/miniforge3
  canary "$conda/bin/conda"; canary "$conda/bin/python"; canary "$conda/condabin/conda"
  mkdir -p "$conda/conda-meta"
  echo '{"channel": "conda-forge"}' >"$conda/conda-meta/conda-26.3.2-py.json"
  for envs in "$1/envs" "$conda/envs"; do
    for name in ".qwen-train-$lock-7" ".qwen-train-$lock-\$(id>pwned)-8" ".qwen-train-$lock-9
##rig host.user
uid=0"; do
      for tool in python pip torchrun; do canary "$envs/$name/bin/$tool"; done
      mkdir -p "$envs/$name/conda-meta" "$envs/$name/.rig" "$envs/$name/lib/python3.11/site-packages"
      printf '{"stack": "standin"}\n##rig paths\nme\t0\t\n' >"$envs/$name/.rig/env.json"
    done
    ln -s ".qwen-train-$lock-7" "$envs/qwen-train"
  done
  for version in $uv; do canary "$1/cache/qwen-rig/uv-$version/bin/uv"; done
  mkdir -p "$1/cache/uv" "$1/cache/pip" "$1/pkgs" "$1/tmp" "$1/huggingface"
  chmod -R a+rwX "$1"
}
for place; do plant "$place/qwen-rig"; done
cd /tmp
perl -e 'symlink "/etc/victim", "/tmp/.qwen-rig-apt.$_" for 1..20000'
"""
# What an admin got wrong: folders that are the user's, or open to all, in places that root's tools look at.
WRONG = r"""
set -eu
echo original >/etc/victim
mv /tmp/opt-conda /opt/conda
cp -r /opt/conda /opt/miniforge3; chown -R root /opt/miniforge3; chmod -R a+rwX /opt/miniforge3
ln -s /opt/conda /root/miniconda3
mkdir -p /root/.conda && echo /var/tmp/qwen-rig/miniforge3/envs/qwen-train >/root/.conda/environments.txt
mkdir -p /usr/local/cuda-99.0/bin /usr/local/cuda-99.0/include
cp /opt/conda/bin/conda /usr/local/cuda-99.0/bin/nvcc; chown -R nosudo /usr/local/cuda-99.0
cp /opt/conda/bin/conda /etc/network_turbo; chown nosudo /etc/network_turbo
"""


def _roomy(folder: Path) -> str:
    """The stand-in stack in a file that says that it takes more than the small root has."""
    table = yaml.safe_load((DATA / "stacks" / "standin.yml").read_text())
    table["disk"]["env_mib"] = ROOT_MIB
    for name in ("standin.lock.txt", "standin.sizes.yml"):
        shutil.copy(DATA / "locks" / name, folder)
    (folder / "roomy.yml").write_text(yaml.safe_dump(table))
    return str(folder / "roomy.yml")


@pytest.fixture(scope="module")
def lab(bed: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    from testbed import HostSpec

    own = {"kind": "container", "driver": "580.95.05:open", "data": "/data"}
    infos = bed.up([HostSpec("shared", **own), HostSpec("pod", root_mib=ROOT_MIB, **own)])
    folder = tmp_path_factory.mktemp("owner")
    lab = Lab(bed, infos, folder, verification="never", cuda_toolkit="never", compilers="never", flash_attn="off")
    lab.data["hosts"]["pod"]["stack"] = _roomy(folder)
    lab.write()
    yield lab
    bed.down()


def as_user(lab: Lab, name: str, script: str, *words: str) -> None:
    """A script by the local user."""
    lab.bed.exec_(name, ["sh", "-c", script, "sh", *words], user="nosudo", check=True)


def plant(lab: Lab, name: str, *places: str) -> None:
    from qwen_rig.deploy.env.installers import uv_lock

    version = uv_lock().split("==", 1)[1].split()[0]
    head = f"ran={RAN}\nlock={load_stack('standin').lock_id}\nuv={version}\n"
    as_user(lab, name, head + PLANT, *places)


def plain(text: str) -> str:
    return " ".join(text.split())


def test_nothing_that_a_local_user_planted_is_run_or_written_to(lab: Lab) -> None:
    lab.on("shared", "chmod 0777 /data")
    plant(lab, "shared", *OPEN)
    as_user(lab, "shared", "cp -r /tmp/qwen-rig/miniforge3 /tmp/opt-conda")
    lab.on("shared", WRONG + f"touch {RAN}; chmod 666 {RAN}; touch /started")
    first = lab.rig("apply", "--yes", "--limit", "shared")
    said = plain(first.stdout + first.stderr)
    ran = lab.on("shared", f"cat {RAN}")
    assert ran == "", f"root ran what another planted: {ran}"
    assert first.code == 0, said
    places = " ".join(f"{place}/qwen-rig" for place in (*OPEN,)) + " /opt/conda /opt/miniforge3"
    put = lab.on("shared", f"find {places} -newer /started ! -type l -printf '%u %p\\n'")
    assert put == "", "nor put anything there"
    assert lab.on("shared", "cat /etc/victim; find / -xdev -name pwned") == "original\n"
    assert lab.on("shared", "readlink -f /root/miniforge3/envs/qwen-train").startswith("/root/miniforge3/envs/.qwen-")
    assert "the conda at /root/miniconda3 is not used: /opt/conda belongs to nosudo (uid 1002), mode 0755" in said
    assert "/opt/miniforge3 is not used: others can write to /opt/miniforge3 (root (uid 0), mode 0777)" in said
    assert "/etc/network_turbo belongs to nosudo" in said and "chmod go-w /opt/miniforge3" in said


def test_and_the_second_run_changes_nothing_in_one_exec(lab: Lab) -> None:
    counted = lab.bed.execs("shared")
    second = lab.rig("apply", "--yes", "--limit", "shared")
    assert "No changes. shared matches." in second.stdout + second.stderr, second.stdout + second.stderr
    assert lab.bed.execs("shared") - counted == 1 and lab.on("shared", f"cat {RAN}") == ""


def test_what_every_run_hangs_on_is_named_with_the_remedy(lab: Lab) -> None:
    lab.on("shared", "chown nosudo /var/lib/qwen-rig; chmod 0777 /root/miniforge3/envs /etc/apt/sources.list.d; "
                     "chmod 0770 /root/.cache; chgrp 1000 /root/.cache")
    refused = lab.rig("plan", "--limit", "shared")
    said = plain(refused.stdout + refused.stderr)
    lab.on("shared", "chown root /var/lib/qwen-rig; chmod 0755 /root/miniforge3/envs /etc/apt/sources.list.d; "
                     "chmod 0755 /root/.cache; chgrp 0 /root/.cache")
    assert refused.code == 1, said
    for words in ("/var/lib/qwen-rig belongs to nosudo (uid 1002), mode 0700", "`chmod go-w /root/.cache`",
                  "others can write to /root/.cache (root (uid 0), mode 0770)", "`chmod go-w /etc/apt/sources.list.d`"):
        assert words in said
    lab.on("shared", "chmod 0777 /root/miniforge3/envs")
    refused = lab.rig("plan", "--limit", "shared")
    lab.on("shared", "chmod 0755 /root/miniforge3/envs")
    assert refused.code == 1 and "`chmod go-w /root/miniforge3/envs`" in plain(refused.stdout), refused


MOUNTS = [("root 0755", True), ("root 0777", True), ("root 1777", True), ("nosudo 0755", False), ("nosudo 1777", False)]


@pytest.mark.parametrize(("mode", "serves"), MOUNTS)
def test_a_disk_as_its_provider_mounts_it(lab: Lab, mode: str, serves: bool) -> None:
    owner, bits = mode.split()
    lab.on("pod", f"chown {owner} /data; chmod {bits} /data")
    plan = lab.rig("plan", "--limit", "pod")
    said = plain(plan.stdout + plan.stderr)
    assert plan.code == (2 if serves else 1), said
    assert ("are on /data" in said) is serves and ("/data belongs to nosudo" in said) is not serves, said


def test_a_disk_for_all_gets_a_folder_of_our_own(lab: Lab) -> None:
    lab.on("pod", "chown root /data; chmod 0777 /data")
    plant(lab, "pod", "/data")
    taken = lab.rig("plan", "--limit", "pod")
    assert "/data/qwen-rig belongs to nosudo" in plain(taken.stdout + taken.stderr)
    lab.on("pod", f"rm -rf /data/qwen-rig; touch {RAN}")
    first = lab.rig("apply", "--yes", "--limit", "pod")
    assert first.code == 0, first.stderr
    assert lab.on("pod", "stat -c '%a %u' /data/qwen-rig; cat /var/tmp/canary-ran") == "700 0\n"
    assert "No changes." in lab.rig("apply", "--yes", "--limit", "pod").stderr
