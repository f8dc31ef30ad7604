"""Secrets: what sudo, indexes and hubs are told goes over standard input and the owner's own files; no other user of a
host ever sees it, and no host can ask for it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from ..conftest import REPO, Lab
from .pty_run import Shown, on_terminal

pytestmark = pytest.mark.testbed
SECRETS = {"sudo": "canary-sudo-6f1d", "hub": "canary-hub-77ab", "wandb": "canary-wandb-03ce",
           "index": "canary-index-91f0"}
OPEN = ("/tmp", "/var/tmp", "/dev/shm", "/run", "/var/lib", "/var/log", "/var/cache/qwen-rig", "/etc", "/home")
ASKED_FOR = "sudo: a password is required"  # pyinfra takes this line of a host's for a reason to ask its user


@pytest.fixture(scope="module")
def lab(bed: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    from testbed import HostSpec

    driver = "580.95.05:open"
    infos = bed.up([HostSpec("asks", user="pw", driver=driver), HostSpec("wrong", user="pw", driver=driver),
                    HostSpec("free", user="dev", driver=driver), HostSpec("liar", driver=driver)])
    lab = Lab(bed, infos, tmp_path_factory.mktemp("secrets"), mirrors="off")
    index = lab.data["defaults"].pop("source_pip_index")
    for name in ("wrong", "free"):
        lab.data["hosts"][name] |= {"sudo_password_env": "RIG_SUDO", "source_pip_index": index}
    lab.data["hosts"]["asks"]["sudo_password_env"] = "RIG_SUDO"
    index = index.replace("://", f"://me:{SECRETS['index']}@")
    trusted = urlsplit(index).hostname
    lab.write()
    bed.exec_("asks", ["chpasswd"], stdin=f"pw:{SECRETS['sudo']}\n", check=True)
    lab.on("asks", f"""umask 077; cd /home/pw; mkdir -p .config/pip
printf '[global]\\nindex-url = {index}\\ntrusted-host = {trusted}\\n' >.config/pip/pip.conf; chown -R pw .config
printf 'export HF_TOKEN={SECRETS["hub"]} WANDB_API_KEY={SECRETS["wandb"]}\\n' | cat - .bashrc >.new
mv .new .bashrc; chown pw .bashrc""")
    lab.on("liar", f"printf 'echo {ASKED_FOR} >&2; exit 1\\n' >/root/.bashrc")
    yield lab
    bed.down()


@contextmanager
def _watched(lab: Lab, name: str) -> Iterator[list[str]]:
    """What an unprivileged user of the host sees of our secrets while the block runs."""
    script = (Path(__file__).parent / "onlooker.pl").read_text()
    seen: list[str] = []
    from testbed import host as testbed_host

    command = testbed_host.enter(lab.bed.folder / "hosts" / name,
                                 ["perl", "-e", script, "/run/enough", *OPEN], user="nosudo")
    watcher = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert watcher.stdin and watcher.stdout
    with watcher.stdin:
        watcher.stdin.write("".join(f"{kind} {value}\n" for kind, value in SECRETS.items()))
    try:
        yield seen
    finally:
        lab.on(name, "touch /run/enough")
        seen += watcher.stdout.read().splitlines()
        watcher.wait()
        lab.on(name, "rm /run/enough")


def _terminal(lab: Lab, *arguments: str, pyinfra: bool = False) -> Shown:
    command = [sys.executable, "-m", "pyinfra", "inventories/lab.py", *arguments] if pyinfra else \
        [sys.executable, "-m", "qwen_rig", *arguments, "-i", str(lab.file)]
    return on_terminal(command, REPO if pyinfra else lab.folder, _environment(lab), b"typed-by-the-user\n")


def _environment(lab: Lab) -> dict[str, str]:
    return {**os.environ, "LAB_HOSTS": str(lab.file), "COLUMNS": "160", "XDG_STATE_HOME": str(lab.folder / "state"),
            "HOME": str(lab.folder / "home"), "RIG_SUDO": SECRETS["sudo"]}


def _here(lab: Lab) -> list[str]:
    """Files of the controller with a secret in them."""
    return [str(path) for path in lab.folder.rglob("*") if path.is_file()
            and any(value.encode() in path.read_bytes() for value in SECRETS.values())]


def test_no_other_user_of_the_host_sees_a_secret_while_all_is_applied(lab: Lab) -> None:
    (lab.folder / "home").mkdir()
    more = {key: _environment(lab)[key] for key in ("HOME", "RIG_SUDO")}
    with _watched(lab, "asks") as seen:
        done = lab.deploy("-y", "-vvv", "--limit", "asks", **more)
    assert seen[-1].startswith("looked ") and int(seen[-1].split()[1]) > 100, seen
    assert not seen[:-1], "\n".join(seen)
    assert done.code == 0, done.stderr[-3000:]
    planned = lab.rig("plan", "--json", "-v", "--save", str(lab.folder / "saved.json"), "--limit", "asks", **more)
    assert planned.code in (0, 2), planned.stderr
    told = done.stdout + done.stderr + planned.stdout + planned.stderr
    assert not [kind for kind, value in SECRETS.items() if value in told]
    assert not _here(lab)
    loose = lab.on("asks", "find /var/lib/qwen-rig /home/pw/.local/state/qwen-rig -name 'log*' -type f -perm /077; "
                           "find /var/lib/qwen-rig /home/pw/.local/state/qwen-rig -type d -perm /077")
    assert not loose, loose
    kept = lab.on("asks", f"grep -rl -e {' -e '.join(SECRETS.values())} /var/lib/qwen-rig /home/pw/.local "
                          "/home/pw/miniforge3/envs/qwen-train/.rig /var/log /tmp 2>/dev/null || true")
    assert not kept, kept


def test_a_password_is_never_what_the_command_reads(lab: Lab) -> None:
    more = {key: _environment(lab)[key] for key in ("HOME", "RIG_SUDO")}
    done = lab.pyinfra("exec", "--sudo", "--limit", "asks", "--limit", "free", "--",
                       "printf 'read:%s:' \"$(cat)\"; id -u", **more)
    assert done.code == 0, done.stderr
    assert done.stderr.count("read::0") == 2, done.stderr
    assert SECRETS["sudo"] not in done.stdout + done.stderr


def test_a_wrong_password_is_tried_once_and_is_a_card(lab: Lab) -> None:
    more = {key: _environment(lab)[key] for key in ("HOME", "RIG_SUDO")}
    done = lab.rig("apply", "--yes", "--limit", "wrong", **more)
    assert done.code == 1 and "sudo_password_env" in done.stderr and "Traceback" not in done.stderr, done.stderr
    tried = lab.on("wrong", "cat /run/tried 2>/dev/null || true")
    assert SECRETS["sudo"] not in done.stdout + done.stderr, tried
    logs = list((lab.folder / "home" / ".cache" / "qwen-rig" / "logs").iterdir())
    assert logs and {path.stat().st_mode & 0o777 for path in logs} == {0o600}
    assert logs[0].parent.stat().st_mode & 0o777 == 0o700 and not _here(lab)


@pytest.mark.parametrize("pyinfra, arguments", [
    (False, ("apply", "--yes", "--limit", "liar")), (True, ("exec", "--sudo", "--limit", "liar", "--", "true")),
    (True, ("fact", "facts.probe.HostState", "--limit", "liar")), (True, ("-y", "deploy/5090.py", "--limit", "liar"))])
def test_no_word_of_a_host_makes_us_ask(lab: Lab, pyinfra: bool, arguments: tuple[str, ...]) -> None:
    shown = _terminal(lab, *arguments, pyinfra=pyinfra)
    assert "password: " not in shown.text and b"typed-by-the-user" not in shown.raw, shown.text
    assert "Traceback" not in shown.text
