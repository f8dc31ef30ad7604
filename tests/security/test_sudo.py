"""sudo's password: on standard input alone, tried once, and never what the command reads."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from pyinfra.api import StringCommand
from pyinfra.api.exceptions import PyinfraError
from pyinfra.connectors import util

from qwen_rig.errors import RigError
from qwen_rig.lab import load_hosts
from qwen_rig.run import (
    boundary,
    process,  # noqa: F401  it patches the standard library, so it stands before pyinfra
)

PASSWORD = "canary it's a $(secret) `x` \\ \"q\""
# sudo as far as both know it (Todd Miller's and sudo-rs): -p and -A aren't in the sudo-rs of Ubuntu 25.10. Each line
# that it takes for a password is kept; it asks three times, as sudo's passwd_tries.
STUB = r"""#!/bin/sh
user=root
while [ $# -gt 0 ]; do
  case $1 in -k | -S | -H) shift ;; -u) user=$2; shift 2 ;; -*) echo "unknown option $1" >&2; exit 1 ;; *) break ;; esac
done
tr '\0' '\n' </proc/$$/environ >>"$STUB/environ"
if [ "$STUB_WANTS" != nothing ]; then
  for try in 1 2 3; do
    IFS= read -r given || { echo 'sudo: no password was provided' >&2; exit 1; }
    printf '%s\n' "$given" >>"$STUB/given"
    [ "$given" != "$STUB_WANTS" ] || break
    echo 'Sorry, try again.' >&2
    [ $try -lt 3 ] || exit 1
  done
fi
echo "$user" >>"$STUB/became"
exec "$@"
"""
SHELLS = [[shell] for shell in ("dash", "bash", "zsh") if shutil.which(shell)] + (
    [["busybox", "sh"]] if shutil.which("busybox") else [])


def _sudo(folder: Path, shell: list[str], wants: str, given: bytes, *command: str, user: str = "",
          ) -> subprocess.CompletedProcess[bytes]:
    (folder / "sudo").write_text(STUB)
    (folder / "sudo").chmod(0o755)
    return subprocess.run(
        [*shell, "-c", boundary.SUDO.text, "sudo", user, "-H", *command], input=given, capture_output=True, check=False,
        env={"PATH": f"{folder}:{os.environ['PATH']}", "STUB": str(folder), "STUB_WANTS": wants,
             "password": "exported"})


@pytest.mark.parametrize("shell", SHELLS, ids=lambda words: words[0])
@pytest.mark.parametrize("wants", [PASSWORD, "nothing"])
def test_the_command_reads_what_is_behind_the_password(tmp_path: Path, shell: list[str], wants: str) -> None:
    rest = b"a line\n\n  \\n no end \xff\x01" * 5000
    done = _sudo(tmp_path, shell, wants, PASSWORD.encode() + b"\n" + rest, "cat", user="builder")
    assert done.returncode == 0 and done.stdout == rest and not done.stderr, done.stderr
    assert (tmp_path / "became").read_text() == "builder\nbuilder\n"
    assert PASSWORD not in (tmp_path / "environ").read_text().replace(f"STUB_WANTS={PASSWORD}", "")
    assert _sudo(tmp_path, shell, wants, f"{PASSWORD}\n".encode(), "sh", "-c", "exit 7").returncode == 7


@pytest.mark.parametrize("shell", SHELLS, ids=lambda words: words[0])
def test_a_wrong_password_is_tried_once_and_nothing_else_is(tmp_path: Path, shell: list[str]) -> None:
    done = _sudo(tmp_path, shell, "another", f"{PASSWORD}\nthe job's own secret\n".encode(), "touch", f"{tmp_path}/ran")
    assert done.returncode == 1 and not (tmp_path / "ran").exists()
    assert (tmp_path / "given").read_text() == f"{PASSWORD}\n"
    assert done.stderr.splitlines()[-1] == \
        b"qwen-rig: sudo does not let us in with the password that the inventory names"
    assert PASSWORD.encode() not in done.stderr


class _Connector:
    """What pyinfra's connectors do with a command, but for the connection."""

    def __init__(self, output: Any = ()) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.output = util.CommandOutput([util.OutputLine("stdout", line) for line in output])

    def connect(self) -> None:
        raise OSError(2, "no such \x1b[2J")

    put_file = get_file = connect

    def run_shell_command(self, command: StringCommand, print_output: bool = False, print_input: bool = False,
                          **arguments: Any) -> tuple[bool, util.CommandOutput]:
        control = util.extract_control_arguments(arguments)  # type: ignore[arg-type]
        self.asked.append((util.make_unix_command(command, **arguments).get_raw_value(), {**control}))
        return True, self.output


class _Host:
    def __init__(self, connector: _Connector, secret: str | None = None) -> None:
        self.connector, self.connector_data = connector, {boundary.SECRET: secret} if secret else {}


def _asked(secret: str | None, **arguments: Any) -> tuple[str, dict[str, Any]]:
    connector = _Connector()
    host = _Host(connector, secret)
    boundary.guard(host)  # type: ignore[arg-type]
    host.connector.run_shell_command(StringCommand("id", "-u"), **arguments)
    return connector.asked[-1]


def test_the_password_is_in_no_argument_and_goes_nowhere_else() -> None:
    for given in (None, "a\nb", ["a", "b"]):
        command, control = _asked(PASSWORD, _sudo=True, _sudo_user="it's", _env={"A": "b"}, _stdin=given, _timeout=9)
        assert "canary" not in command and "SUDO_ASKPASS" not in command and control["_timeout"] == 9
        assert control["_stdin"][0] == PASSWORD
        assert "\n".join(control["_stdin"][1:]) == ("" if given is None else "a\nb")
    assert _asked(None, _sudo=True, _sudo_password=PASSWORD)[1]["_stdin"] == [PASSWORD], "an inventory of pyinfra's own"
    assert _asked(None, _sudo=True) == ("sudo -H -n sh -c 'id -u'", {}), "none is named: none is asked for"
    assert _asked(PASSWORD) == ("sh -c 'id -u'", {}), "no sudo, no password"
    with pytest.raises(PyinfraError, match="_get_pty"):
        _asked(PASSWORD, _sudo=True, _get_pty=True)


def test_what_a_host_says_is_fit_wherever_it_comes_in() -> None:
    host = _Host(_Connector(["\x1b[2Jx\u202e", "plain"]))
    boundary.guard(host)  # type: ignore[arg-type]
    _, output = host.connector.run_shell_command(StringCommand("x"))
    assert output.stdout_lines == ["\\u001b[2Jx\\u202e", "plain"]
    with pytest.raises(OSError) as raised:
        host.connector.connect()
    assert "\x1b" not in str(raised.value) and "no such \\u001b[2J" in str(raised.value)


@pytest.mark.parametrize("line", ["sudo: a password is required", "sudo-rs: interactive authentication is required"])
def test_no_line_of_a_host_makes_pyinfra_ask(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    for name in ("SUDO_PASSWORD_REQUIRED_LINES", "getpass", "read_buffer"):
        monkeypatch.setattr(util, name, getattr(util, name))  # put back afterwards
    monkeypatch.setattr(util, "getpass", lambda prompt: asked.append(prompt) or "typed")

    class Named:
        print_prefix, connector_data = "[host] ", dict[str, str]()

    said = (1, util.CommandOutput([util.OutputLine("stderr", line)]))
    boundary.settle()
    assert util.execute_command_with_sudo_retry(Named(), {}, lambda: said) == said  # type: ignore[arg-type]
    assert not asked
    with pytest.raises(PyinfraError):
        util.getpass("x")


def test_a_secret_of_several_lines_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "lab.yml"
    file.write_text("hosts:\n  a:\n    address: 10.0.0.1\n    sudo_password_env: RIG_SUDO\n")
    monkeypatch.setenv("RIG_SUDO", "one\ntwo")
    with pytest.raises(RigError, match=r"RIG_SUDO .* more than one line"):
        load_hosts(file)
