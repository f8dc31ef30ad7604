"""conda as it is: what its users do to our env and to theirs. conda is the stand-in, in a real conda's words
(docs/conda.md); the packages are in conda's own format, Python, pip and uv are real."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from .conftest import Lab

pytestmark = pytest.mark.testbed
ENVS, CONDA = "/root/miniforge3/envs", "/root/miniforge3/bin/conda"
SITE = f"{ENVS}/qwen-train/lib/python3.*/site-packages"


@pytest.fixture(scope="module")
def lab(bed: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    from testbed import HostSpec

    infos = bed.up([HostSpec("forge", driver="580.95.05:open")])
    lab = Lab(bed, infos, tmp_path_factory.mktemp("conda"), verification="never", compilers="never", flash_attn="off")
    yield lab
    bed.down()


def applied(lab: Lab, *said: str) -> str:
    done = lab.deploy("-y")
    text = " ".join(done.stderr.split())
    assert done.code == 0 and all(words in text for words in said), done.stderr
    return lab.on("forge", f"readlink {ENVS}/qwen-train").strip()


def test_what_users_and_their_settings_do_to_an_env_ends_in_a_sound_one(lab: Lab) -> None:
    lab.on("forge", "printf 'offline: true\\ncreate_default_packages: [no-such-package]\\n' >/root/.condarc")
    first = applied(lab)
    assert lab.on("forge", f"cd {ENVS}/{first}/bin && head -qn1 pip").strip() == f"#!{ENVS}/qwen-train/bin/python"
    assert lab.on("forge", "cat /root/.conda/environments.txt") == f"{ENVS}/qwen-train\n", "by its one name"

    frozen = lab.on("forge", f"{CONDA} install -n qwen-train six 2>&1 || true")
    assert "EnvironmentIsFrozenError" in frozen and "qwen-rig made this env from a lock" in frozen

    # Its conda packages go, by way of the link, and the link; what pip brought stays. And a cache that is half there.
    lab.on("forge", f"{CONDA} env remove -n qwen-train --override-frozen; "
                    "rm -r /root/miniforge3/pkgs/python-*/lib/python3*/json; ls -d "
                    f"{ENVS}/{first}/.rig/env.json")
    second = applied(lab, "none → standin")
    assert second == f"{first[:-1]}2" and not lab.on("forge", f"ls -d {ENVS}/{first} 2>/dev/null || true")

    # A module is edited in place: uv links it out of its cache, which is spoilt with it.
    lab.on("forge", f"echo 'edited = 1' >>$(echo {SITE}/six.py)")
    assert applied(lab, "six: six.py was changed") == second
    assert not lab.on("forge", f"grep edited {SITE}/six.py || true")

    # An env of the user's own by that name: it goes on under another, with its own Python, and comes back.
    lab.on("forge", f"cd {ENVS} && rm qwen-train && rm -r .qwen-train-* && : >/root/.condarc && {CONDA} create -y -q "
                    f"-n qwen-train --override-channels -c {lab.bed.services().conda_channel} python pip")
    applied(lab, "your own env goes on as qwen-t.old")
    theirs = lab.on("forge", f"cd {ENVS}/qwen-t.old; bin/pip --version; grep -rlF {ENVS}/qwen-train . || true")
    assert theirs.startswith("pip ") and f"from {ENVS}/qwen-t.old/lib/" in theirs and len(theirs.splitlines()) == 1
    assert "No changes." in lab.deploy("-y").stderr
    undone = lab.pyinfra("-y", "deploy/undo.py")
    assert undone.code == 0, undone.stderr
    assert f"from {ENVS}/qwen-train/lib/" in lab.on("forge", f"cd /; {ENVS}/qwen-train/bin/pip --version")
