"""pyinfra's own options with what can't be meant, each through its real command line: one line, exit status not 0, and
nobody is dialled. All in one process, as each start of pyinfra takes a second."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

from tests import HANG_S

ROOT = Path(__file__).parents[1]
LAB, DEPLOY = "inventories/lab.py", "deploy/5090.py"
OURS = "isn't for qwen-rig's deploys · pyinfra's options · leave it out: the steps that take root use sudo"
OPTIONS = [  # (words behind `pyinfra -y inventories/lab.py deploy/5090.py`, what the line says)
    (["--chdir", "nosuch"], "no such folder, or it can't be entered: 'nosuch' · --chdir"),
    (["--chdir", "README.md"], "can't be entered: 'README.md' · --chdir"),
    (["--chdir", "deploy"], "pyinfra has read no config.py of a qwen-rig project"),
    (["--config", "."], "a config is a file, not a folder: '.' · --config"),
    (["--config", "README.md"], "it is no Python: "),
    (["--config", "FOLDER/raises.py"], "it can't be run: ZeroDivisionError: division by zero (raises.py:1)"),
    (["--config", "FOLDER/empty.py"], "pyinfra has read no config.py of a qwen-rig project"),
    (["--group-data", "nosuch"], "no such file or folder: 'nosuch' · --group-data"),
    (["--group-data", ""], "no such file or folder: '' · --group-data"),
    (["--group-data", "docs"], "there is no group's data in it: docs · --group-data"),
    (["--group-data", "README.md"], "there is no group's data in it: README.md"),
    (["--group-data", "FOLDER/raises.py"], "it can't be run: ZeroDivisionError"),
    (["--group-data", "FOLDER/syntax.py"], "it is no Python: '[' was never closed · FOLDER/syntax.py:1"),
    *((["--" + name, "x"], "is not a valid integer") for name in (
        "parallel", "fail-percent", "retry", "retry-delay", "ssh-port")),
    *((["--" + name, "99999999999999999999"], f"--{name} can't be 99999999999999999999") for name in (
        "parallel", "fail-percent", "retry", "retry-delay")),
    *((["--" + name, "-1"], f"--{name} can't be -1") for name in ("parallel", "fail-percent", "retry", "retry-delay")),
    (["--parallel", "0"], "--parallel can't be 0 · pyinfra's options · a whole number from 1 to"),
    (["--fail-percent", "101"], "a whole number from 0 to 100"),
    *((["--" + name, ""], f"{shown} is empty · pyinfra's options · give a value, or leave it out") for name, shown in (
        ("chdir", "--chdir"), ("sudo-user", "--sudo-user"), ("su-user", "--su-user"), ("dzdo-user", "--dzdo-user"),
        ("shell-executable", "--shell-executable"), ("ssh-user", "--user"), ("ssh-key", "--key"),
        ("ssh-key-password", "--key-password"), ("ssh-password", "--password"))),
    *((words, f"{words[0]} {OURS}") for words in (
        ["--sudo"], ["--sudo-user", "root"], ["--use-sudo-password"], ["--use-sudo-login"], ["--su-user", "; id"],
        ["--dzdo"], ["--dzdo-user", "x"], ["--shell-executable", "nosuch"])),
    (["--same-sudo-password"], "one password for all hosts would also reach hosts"),
    (["--ssh-key", "nosuch"], "no such key: nosuch · --key"),
    (["--ssh-key", "README.md"], "it is no private key, or its passphrase is another: README.md · --key"),
    (["--ssh-user", "a b"], "--user can't be 'a b'"), (["--ssh-port", "70000"], "--port can't be '70000'"),
    (["--ssh-password-prompt"], "pyinfra asked for something, and nobody answers · standard input"),
    (["--data", "x"], "'x' is no KNOB=VALUE · --data"), (["--limit", ""], "no host or group '' · --limit"),
    (["--exclude", "lab-01"], "--limit and --exclude leave no host"), (["--env", "A=b"], "No such option '--env'"),
    (["FOLDER/syntax.py"], "it is no Python: '[' was never closed · FOLDER/syntax.py:1"),
    (["config.py"], "it is the project's config, and no deploy · config.py"),
    (["deploy/provision.py"], "it is a part of qwen-rig and does nothing by itself · deploy/provision.py"),
    (["--limit", "lab-01", "--limit", "nosuch"], "no host or group 'nosuch' · --limit"),
]
WHOLE = [  # all words behind `pyinfra -y`
    ([DEPLOY, LAB], "it is a deploy, and no inventory · deploy/5090.py"),
    (["FOLDER/lab.yml", DEPLOY], "pyinfra takes an inventory in Python · FOLDER/lab.yml"),
    (["FOLDER/syntax.py", DEPLOY], "it is no Python: '[' was never closed · FOLDER/syntax.py:1"),
    (["FOLDER/raises.py", DEPLOY], "it can't be run: ZeroDivisionError: division by zero (raises.py:1)"),
    (["nobody-of-this-name.invalid", DEPLOY], "there is no host in it · nobody-of-this-name.invalid"),
    ([LAB, "fact", "server.Date", "--user=-oProxyCommand=x"], "--user can't be '-oProxyCommand=x'"),
    ([LAB, "server.shell", "true"], "pyinfra can't go on: TypeError: "),
    ([LAB, "deploy/" + "x" * 300 + ".py"], "no file can be called so: "),
    (["x" * 300, DEPLOY], "no file can be called so: "),
    ([LAB, "fact", "nosuch.Fact"], "No such module: nosuch"), ([LAB, "deploy"], "Invalid operations: ('deploy',)"),
]
ALL = """
import contextlib, io, json, os, sys
sys.argv = ["pyinfra"]
from pyinfra_cli.cli import cli
for words in json.load(sys.stdin):
    said = io.StringIO()
    os.chdir(HERE)
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said), open(os.devnull) as sys.stdin:
        try:
            cli(["-y", *words])
        except SystemExit as end:
            code = end.code
    if isinstance(code, str):
        said.write(code)
        code = 1
    print(json.dumps([code, said.getvalue()]))
"""


def test_each_option_with_what_cannot_be_meant(tmp_path: Path) -> None:
    for name, text in {"syntax": "hosts = [\n", "raises": "x = 1 / 0\n", "empty": ""}.items():
        (tmp_path / f"{name}.py").write_text(text)
    rows = [([LAB, DEPLOY, *words], says) for words, says in OPTIONS] + WHOLE
    given = [([word.replace("FOLDER", str(tmp_path)) for word in words], says.replace("FOLDER", str(tmp_path)))
             for words, says in rows]
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        lab = tmp_path / "lab.yml"
        lab.write_text(f"hosts: {{lab-01: {{address: 127.0.0.1, port: {listening.getsockname()[1]}}}}}\n")
        done = subprocess.run(
            [sys.executable, "-c", ALL.replace("HERE", repr(str(ROOT)))], cwd=ROOT, text=True, capture_output=True,
            input=json.dumps([words for words, _ in given]), timeout=HANG_S, start_new_session=True,
            env={**os.environ, "LAB_HOSTS": str(lab), "XDG_CACHE_HOME": str(tmp_path)})
        try:
            listening.accept()
            raise AssertionError("somebody was dialled")
        except BlockingIOError:
            pass
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(told) == len(given), done.stderr[-2000:]
    for (words, says), (code, said) in zip(given, told, strict=True):
        assert code and "Traceback" not in said and "internal exception" not in said, (words, code, said)
        own = {line for line in said.splitlines() if line.startswith(("qwen-rig: ", "Error: ", "--> pyinfra error: "))}
        assert len(own) == 1 and says in said, (words, said)
