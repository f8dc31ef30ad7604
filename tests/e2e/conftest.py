"""Real hosts over real SSH: the testbed's, brought up once for all tests here. Their GPUs and NVIDIA's packages are
emulated; sshd, apt, dpkg, pip, uv and the env's Python are real."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from qwen_rig.facts import _dist
from tests import HANG_S, instance

REPO = Path(__file__).parents[2]
ENV = "/root/miniforge3/envs/qwen-train"


@dataclass
class Run:
    """One pyinfra process, finished."""

    code: int
    stdout: str
    stderr: str

    @property
    def results(self) -> dict[str, dict[str, int]]:
        """pyinfra's own results table: operation → {hosts, success, error, no_change}."""
        rows = {}
        for line in self.stderr.split("--> Results:")[-1].splitlines():
            cells = line.split()
            if len(cells) >= 5 and all(cell == "-" or cell.isdigit() for cell in cells[-4:]):
                numbers = [0 if cell == "-" else int(cell) for cell in cells[-4:]]
                rows[" ".join(cells[:-4])] = dict(zip(("hosts", "success", "error", "no_change"), numbers, strict=True))
        return rows


class Lab:
    """Testbed hosts with an inventory file of their own, and pyinfra run against them as a user would."""

    def __init__(self, bed: Any, infos: list[Any], folder: Path, **defaults: Any) -> None:
        self.bed, self.hosts, self.file = bed, {info.name: info for info in infos}, folder / "lab.yml"
        self.folder = folder
        from testbed import interpreter

        self.data = {"defaults": {"stack": "standin", "verification_gpu": False,
                                  "known_hosts": str(folder / "known_hosts"),
                                  "python": interpreter.choose().minor, **bed.services().knobs(), **defaults},
                     "hosts": {i.name: {"address": i.address, "port": i.port, "user": i.user, "key": i.key}
                               for i in infos}}
        self.write()

    def write(self) -> None:
        self.file.write_text(yaml.safe_dump(self.data))

    def pyinfra(self, *arguments: str, stdin: str | None = None, timeout: int = HANG_S, inventory: str = "lab",
                **environment: str) -> Run:
        env = self._environment(environment)
        # gevent's subprocess, once something imported it, takes `input` or `stdin` but never both.
        given: dict[str, Any] = {"stdin": subprocess.DEVNULL} if stdin is None else {"input": stdin}
        done = subprocess.run([sys.executable, "-m", "pyinfra", f"inventories/{inventory}.py", *arguments], cwd=REPO,
                              text=True, env=env, capture_output=True, timeout=timeout, **given)
        return Run(done.returncode, done.stdout, done.stderr)

    def begin(self, output: Path, *arguments: str, **environment: str) -> subprocess.Popen[bytes]:
        """pyinfra as its own session, in the background; what it says goes to the file."""
        with output.open("wb") as said:
            return subprocess.Popen([sys.executable, "-m", "pyinfra", "inventories/lab.py", *arguments], cwd=REPO,
                                    env=self._environment(environment), stdin=subprocess.DEVNULL, stdout=said,
                                    stderr=said, start_new_session=True)

    def _environment(self, more: dict[str, str]) -> dict[str, str]:
        return {**os.environ, "LAB_HOSTS": str(self.file), "COLUMNS": "160",
                "XDG_STATE_HOME": str(self.folder / "state"), **more}

    def rig(self, *arguments: str, timeout: int = HANG_S, answer: str | None = None, **environment: str) -> Run:
        """`qwen-rig VERB … -i` this lab; `answer` is typed on a terminal, else there is none."""
        env = {**os.environ, "COLUMNS": "160", "XDG_STATE_HOME": str(self.folder / "state"), **environment}
        command = [sys.executable, "-m", "qwen_rig", *arguments]
        if not any(argument.endswith(".json") and (self.folder / argument).is_file() for argument in arguments[1:2]):
            command += ["-i", str(self.file)]
        if answer is None:
            done = subprocess.run(command, cwd=self.folder, env=env, text=True, capture_output=True, timeout=timeout,
                                  stdin=subprocess.DEVNULL)
            return Run(done.returncode, done.stdout, done.stderr)
        ours, theirs = os.openpty()
        os.write(ours, f"{answer}\n".encode())
        try:
            done = subprocess.run(command, cwd=self.folder, env=env, text=True, capture_output=True, timeout=timeout,
                                  stdin=theirs)
        finally:
            os.close(ours)
            os.close(theirs)
        return Run(done.returncode, done.stdout, done.stderr)

    def deploy(self, *arguments: str, **more: Any) -> Run:
        return self.pyinfra(*arguments, "deploy/5090.py", **more)

    def on(self, name: str, script: str) -> str:
        """What a script prints on a host, past pyinfra."""
        return str(self.bed.exec_(name, ["sh", "-c", script], check=True).stdout)

    def stand_in_trainer(self, name: str) -> None:
        """Give a host's env the STAND-IN of the trainer's libraries (tests/training/standin), and a model for it."""
        from testbed import host

        unpack = host.enter(self.bed._host_folder(name),
                            ["sh", "-c", "mkdir -p /opt/standin && tar -x -C /opt/standin"])
        folder = REPO / "tests" / "training" / "standin"
        with subprocess.Popen(["tar", "-C", str(folder), "-c", "."], stdout=subprocess.PIPE) as packed:
            subprocess.run(unpack, stdin=packed.stdout, check=True)
        self.on(name, f"""mkdir -p /opt/model && echo '{{"step_s": 0.4, "oom_above": 16}}' >/opt/model/config.json
echo /opt/standin >"$(echo {ENV}/lib/python3*/site-packages)/of-the-test.pth" """)
        chat = '{"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]}'
        (self.folder / "chats.jsonl").write_text(f"{chat}\n" * 40)

    def in_background(self, *arguments: str) -> subprocess.Popen[str]:
        """`qwen-rig …`, begun."""
        return subprocess.Popen([sys.executable, "-m", "qwen_rig", *arguments], cwd=self.folder, text=True,
                                env=self._environment({}), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, start_new_session=True)

    def tear(self, name: str, module: str) -> None:
        """Let a module raise ImportError("torn"), its file as long as before: neither name nor size tells."""
        self.on(name, f"""f=$(echo {module}); n=$(wc -c <"$f")
{{ echo 'raise ImportError("torn")'; yes '#' | head -n "$n"; }} | head -c "$n" >"$f.torn"; cat "$f.torn" >"$f"
rm "$f.torn" """)

    def fingerprint(self, name: str) -> str:
        """What must not change on a host that is refused: packages, /etc, the envs with their links and files."""
        return self.on(name, "dpkg-query -W -f '${Package} ${Version} ${Status}\\n'; "
                             "find /etc -xdev -type f ! -name ld.so.cache -exec sha256sum {} + 2>/dev/null | sort; "
                             "cd /root/miniforge3/envs 2>/dev/null || exit 0; ls -la; find . ! -name '*.pyc' -type f "
                             "-exec sha256sum {} + | sort")

    def installed(self, name: str, env: str) -> set[str]:
        """What an env's site-packages hold: each package as `name-version`, each module's file by its digest, whoever
        installed them. (An old pip without `wheel` leaves .egg-info where others leave .dist-info.)

        Left out: files that two packages claim, where whichever comes last wins (akracer and py-mini-racer do it).
        """
        script = (f"cd /root/miniforge3/envs/{env}/lib/python3*/site-packages && ls -d *-info && echo && "
                  "cat *.dist-info/RECORD | cut -d, -f1 | sort | uniq -d && echo && "
                  "find . -name '*.py' -o -name '*.so*' | sort | xargs sha256sum")
        infos, _, rest = self.on(name, script).partition("\n\n")
        twice, _, files = f"\n{rest}".partition("\n\n")  # the middle part may be empty
        packages = filter(None, map(_dist.package, infos.split()))
        return {f"{package}-{version}" for package, version in packages} | {
            " ".join(line.split()) for line in files.splitlines()
            if line.partition(" ./")[2] not in twice.split("\n")}

    def record(self, name: str, kind: str) -> dict[str, Any]:
        return json.loads(self.on(name, f"cat /root/miniforge3/envs/qwen-train/.rig/{kind}.json"))  # type: ignore


@pytest.fixture(scope="session")
def bed() -> Iterator[Any]:
    if os.geteuid() != 0 or not sys.platform.startswith("linux"):
        pytest.skip("real SSH hosts on this machine take root on Linux")
    from qwen_rig.catalog.stack import load_stack
    from testbed import Testbed, demo

    demo.fetch(load_stack("standin"))
    made = Testbed(instance("tests"))
    yield made
    made.down()
