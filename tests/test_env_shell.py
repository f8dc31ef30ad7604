"""The env's shell against a conda that fails as conda 26.7.1 did (in its words), and an env that moves."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

REPO = Path(__file__).parents[1]
BEGIN = """set -eu
cd {repo}
. qwen_rig/shell/owned.sh
. deploy/env/python.sh
. deploy/env/aside.sh
. deploy/env/settle.sh
"""
CORRUPT = ("CondaVerificationError: The package for python located at {pkgs}/python-3.10.13-h1_0\n"
           "appears to be corrupted. The path 'lib/abc.py'\nspecified in the package manifest cannot be found.\n\n")
SIZE = "SafetyError: The package for wheel located at {pkgs}/wheel-0.45.1-pyh_0\nappears to be corrupted.\n"
CLOBBER = "ClobberError: This transaction has incompatible packages due to a shared path.\n"
FAILS = {  # what conda said → what the card says of it
    "\nUnavailableInvalidChannel: HTTP 404 NOT FOUND for channel x <http://c/x>\n\nThe channel is not accessible.\n":
        "UnavailableInvalidChannel: HTTP 404 NOT FOUND for channel x <http://c/x>",
    "Retrying (Retry(total=2)) after connection broken: http://c\n\nProxyError: Conda cannot proceed due to an error.\n"
    "Check for typos and other configuration errors\n": "ProxyError: Conda cannot proceed due to an error.",
    "    Traceback (most recent call last):\n    conda.common.configuration.ConfigurationLoadError: Unable to load "
    "configuration file.\n\nExample: CONDA_NO_PLUGINS=true conda install <package>\n":
        "ConfigurationLoadError: Unable to load configuration file.",
    f"LockError: Failed to acquire lock.\n{CLOBBER}": "LockError: Failed to acquire lock.",
    "Killed\n": "Killed",
    "": "it failed and said nothing",
}


def run(folder: Path, script: str, conda: str = "exit 0") -> subprocess.CompletedProcess[str]:
    """The script with `conda` in its place; what conda was told is in folder/asked."""
    for name in ("home", "cache", "pkgs"):
        (folder / name).mkdir(exist_ok=True)
    (folder / "conda").write_text(f'#!/bin/sh\necho "$*" >>{folder}/asked\necho "## Package Plan ##"\n{conda}\n')
    (folder / "conda").chmod(0o755)
    body = BEGIN.format(repo=REPO) + f"conda={folder}/conda cache={folder}/cache\n{script}"
    return subprocess.run(["sh", "-c", body], capture_output=True, text=True,
                          env={"HOME": str(folder / "home"), "PATH": os.environ["PATH"]})


@pytest.mark.parametrize(("said", "told"), FAILS.items())
def test_condas_own_word_for_a_failure_comes_last_and_its_settings_are_named(
        tmp_path: Path, said: str, told: str) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / ".condarc").write_text("proxy_servers:\n  http: http://me:secret@h\noffline: true\n")
    (tmp_path / "said").write_text(said)
    done = run(tmp_path, "own_rules\ncreate /nowhere/env python=3.10", f"cat {tmp_path}/said >&2; exit 1")
    last = done.stdout.splitlines()[-1]
    assert done.returncode == 1 and last.startswith(f"qwen-rig: conda: {told}; it was told by "), done
    assert last.endswith(".condarc (proxy_servers offline)") and "secret" not in done.stdout + done.stderr
    assert "create -y -q -p /nowhere/env --no-default-packages python=3.10" in (tmp_path / "asked").read_text()


def test_a_package_that_is_half_unpacked_is_taken_away_and_nothing_else(tmp_path: Path) -> None:
    pkgs, other = tmp_path / "pkgs", tmp_path / "mine" / "python-3.10.13-h1_0"
    for folder in (pkgs / "python-3.10.13-h1_0", pkgs / "wheel-0.45.1-pyh_0", pkgs / "six-1-0", other):
        folder.mkdir(parents=True)
    (pkgs / "urls.txt").touch()
    said = (CORRUPT + SIZE).format(pkgs=pkgs) + CORRUPT.format(pkgs=tmp_path / "mine")
    (tmp_path / "said").write_text(said)
    fails = f"[ ! -e {pkgs}/python-3.10.13-h1_0 ] || {{ cat {tmp_path}/said >&2; exit 1; }}"
    done = run(tmp_path, "create /nowhere/env python=3.10; echo made", fails)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "made"), done
    assert sorted(path.name for path in pkgs.iterdir()) == ["six-1-0", "urls.txt"]
    assert other.is_dir(), "it lies in no cache of conda's"
    done = run(tmp_path, "create /nowhere/env python=3.10", f"cat {tmp_path}/said >&2; exit 1")
    assert done.returncode == 1 and "CondaVerificationError" in done.stdout.splitlines()[-1], "and it ends"


def test_an_env_that_conda_made_for_another_python_is_not_kept(tmp_path: Path) -> None:
    fake = tmp_path / "env" / "bin"
    makes = f"mkdir -p {fake}; printf '#!/bin/sh\\nexec python3 -c \"$3\" 9.9\\n' >{fake}/python; chmod +x {fake}/*"
    done = run(tmp_path, "conda_lock='' channels=https://c.example python_version=9.9\n"
                         f"python_env {tmp_path}/env 9.9 || exit 1", makes)
    assert done.returncode == 1 and "Python 9.9 and pip don't run" in done.stdout and not (tmp_path / "env").exists()


def test_a_build_is_gone_on_with_only_where_nobody_else_was(tmp_path: Path) -> None:
    env = tmp_path / "env"
    for folder in ("conda-meta", "bin", ".rig"):
        (env / folder).mkdir(parents=True)
    (env / "conda-meta" / "history").write_text("==> ours <==\n")
    (env / "bin" / "python").write_text("#!/bin/sh\n")
    (env / "bin" / "python").chmod(0o755)
    asks = f"python_version=3.10\nif as_we_left {env}; then echo ours; else echo touched; fi"
    assert run(tmp_path, asks).stdout == "touched\n", "release 0.2.0 left an empty mark"
    assert run(tmp_path, f"conda_state {env} >{env}/.rig/python\n{asks}").stdout == "ours\n"
    for touch in ("echo 'somebody installed' >>history", "touch six-1-0.json"):
        assert run(tmp_path, f"conda_state {env} >{env}/.rig/python\n(cd {env}/conda-meta && {touch})\n{asks}"
                   ).stdout == "touched\n"
    (env / "bin" / "python").write_text("#!/bin/sh\nexit 1\n")
    assert run(tmp_path, f"conda_state {env} >{env}/.rig/python\n{asks}").stdout == "touched\n"


def test_an_env_that_steps_aside_speaks_of_its_new_place_and_back(tmp_path: Path) -> None:
    root = tmp_path / "en[v]s & more"
    env, other = root / "qwen-train", root / "qwen-t.old"
    (env / "bin").mkdir(parents=True)
    (env / "bin" / "pip").write_text(f"#!{env}/bin/python\nprint('{env}')\n")
    (env / "bin" / "pip").chmod(0o755)
    (env / "lib.so").write_bytes(f"\0a{env}/lib\0{env}-2/lib".encode() + b"\0" * 9)
    (env / "link").symlink_to(env / "bin" / "pip")
    (env / "away").symlink_to("/etc/passwd")
    before = {path.name: path.read_bytes() for path in env.rglob("*") if path.is_file() and path.name != "away"}
    go = f'root="{root}" name=qwen-train\nstep_aside %s %s\nmoved_aside'
    done = run(tmp_path, go % ("qwen-train", "qwen-t.old"))
    assert done.returncode == 0, done
    assert (other / "bin" / "pip").read_text() == f"#!{other}/bin/python\nprint('{other}')\n"
    assert os.access(other / "bin" / "pip", os.X_OK) and (other / "link").readlink() == other / "bin" / "pip"
    assert (other / "away").readlink() == Path("/etc/passwd")
    assert (other / "lib.so").read_bytes() == f"\0a{other}/lib\0{env}-2/lib".encode() + b"\0" * 9
    assert not list(root.glob(".*"))
    # A kill between the two: the next run tells the rest.
    assert run(tmp_path, f'root="{root}" name=qwen-train\nstep_aside qwen-t.old qwen-train').returncode == 0
    assert run(tmp_path, f'root="{root}" name=qwen-train\nmoved_aside').returncode == 0
    assert {path.name: path.read_bytes() for path in env.rglob("*") if path.is_file() and path.name != "away"} == before


def test_programs_start_by_the_envs_name_and_conda_is_told_to_keep_out(tmp_path: Path) -> None:
    made, link = tmp_path / ".qwen-train-0a1b2c3d4e5f-1", tmp_path / "qwen-train"
    (made / "bin").mkdir(parents=True)
    (made / "conda-meta").mkdir()
    texts = {"pip": f"#!{made}/bin/python3.10 -E\nx\n", "sh": "#!/bin/sh\ny\n", "other": f"#!{made}-2/bin/python\n",
             "elf": "\x7fELF\0\0"}
    for name, text in texts.items():
        (made / "bin" / name).write_text(text)
        (made / "bin" / name).chmod(0o750)
    (made / "bin" / "pip3").symlink_to("pip")
    assert run(tmp_path, f"settle {made} {link}\nsettle {made} {link}").returncode == 0
    now = {name: (made / "bin" / name).read_text() for name in texts}
    assert now == {**texts, "pip": f"#!{link}/bin/python3.10 -E\nx\n"} and (made / "bin" / "pip3").is_symlink()
    assert (made / "bin" / "pip").stat().st_mode & 0o777 == 0o750
    assert "qwen-rig made this env from a lock" in (made / "conda-meta" / "frozen").read_text()


def test_conda_finds_an_env_on_a_data_disk_by_its_name(tmp_path: Path) -> None:
    """By a link among its own envs, which takes no name of anybody's, and goes where the env goes."""
    env, known = tmp_path / "data" / "qwen-rig" / "envs" / "qwen-train", tmp_path / "forge" / "envs" / "qwen-train"
    env.mkdir(parents=True)
    listed = tmp_path / "home" / ".conda" / "environments.txt"
    for was in (None, tmp_path / "gone" / "qwen-rig" / "envs" / "qwen-train"):  # none; one on a disk that is gone
        known.unlink(missing_ok=True)
        if was:
            known.symlink_to(was)
        assert run(tmp_path, f"name_for_conda {env} {known}").returncode == 0
        assert known.readlink() == env and listed.read_text() == f"{known}\n"
    for theirs in (known.mkdir, lambda: known.symlink_to("of-their-own")):
        known.unlink() if known.is_symlink() else known.rmdir() if known.exists() else None
        theirs()
        listed.unlink()
        assert run(tmp_path, f"name_for_conda {env} {known}").returncode == 0
        assert not known.is_symlink() or str(known.readlink()) == "of-their-own"
        assert listed.read_text() == f"{env}\n"
    listed.unlink()
    assert run(tmp_path, f"name_for_conda {env} ''").returncode == 0 and listed.read_text() == f"{env}\n"
