"""A testbed host that a campaign breaks, the user's commands against it, and what is true of it by our own eyes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from qwen_rig.catalog.stack import load_stack
from testbed import HostSpec, Testbed, cli, demo

REPO = Path(__file__).resolve().parents[1]
HOST = "lab-01"
ENVS = "/root/miniforge3/envs"
JOBS = "/var/lib/qwen-rig/jobs"
RUN_S = 900  # a run that takes longer hangs
# A small system disk, so that a full one is soon full; what is told by name is left out of its room.
SPEC = HostSpec(HOST, driver="580.95.05:open", root_mib=2048)


@dataclass(frozen=True)
class Run:
    """One of our processes, finished. `code` None: it hung and was ended."""

    code: int | None
    said: str


class Lab:
    """The host, its inventory, and commands against it."""

    def __init__(self, bed: Testbed, folder: Path) -> None:
        self.bed, self.folder = bed, folder
        demo.fetch(load_stack("standin"))
        bed.up([SPEC])
        self.file = cli.inventory(bed)
        data = yaml.safe_load(self.file.read_text(encoding="utf-8"))
        data["defaults"].update(stack="standin", flash_attn="off", known_hosts=str(folder / "known_hosts"))
        self.file.write_text(yaml.safe_dump(data), encoding="utf-8")

    def begin(self, said: Path, *arguments: str, within: Sequence[str] = (), **environment: str) -> Any:
        """pyinfra as its own session; `within`: the words in front of its command line."""
        env = {**os.environ, "LAB_HOSTS": str(self.file), "COLUMNS": "160",
               "XDG_STATE_HOME": str(self.folder / "state"), **environment}
        command = [*within, sys.executable, "-m", "pyinfra", "inventories/lab.py", "-y", "deploy/5090.py", *arguments]
        with said.open("wb") as file:
            return subprocess.Popen(command, cwd=REPO, env=env, stdin=subprocess.DEVNULL, stdout=file, stderr=file,
                                    start_new_session=True)

    def end(self, process: Any, said: Path) -> Run:
        """That process when it has ended."""
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=RUN_S)
        code = process.poll()
        if code is None:
            process.kill()
            process.wait()
        return Run(code, said.read_text(encoding="utf-8", errors="replace"))

    def run(self, *arguments: str, within: Sequence[str] = (), **environment: str) -> Run:
        """The documented command, from its start to its end."""
        said = self.folder / "run.log"
        return self.end(self.begin(said, *arguments, within=within, **environment), said)

    def on(self, script: str, check: bool = False) -> str:
        """What a script prints on the host, past SSH."""
        return self.bed.exec_(HOST, ["sh", "-c", script], check=check, timeout=RUN_S).stdout

    def sound(self) -> str:
        """What is wrong with the env, by its own import and its link; "" where it can be used."""
        gate = load_stack("standin").import_gate
        done = self.bed.exec_(HOST, ["timeout", "120", f"{ENVS}/qwen-train/bin/python", "-c", gate], timeout=RUN_S)
        return "" if done.returncode == 0 else (done.stderr or done.stdout or f"exit {done.returncode}")[-300:]

    def leftovers(self) -> list[str]:
        """Our leftovers that nobody needs: half generations, tries, temporary files, pipes."""
        return self.on(f"""cd {ENVS} 2>/dev/null && now=$(readlink qwen-train) &&
  was=$(sed -n 's/.*"previous": "\\([^"]*\\)".*/\\1/p' qwen-train/.rig/env.json)
for each in .qwen-train-* .qwen-train.moved qwen-train.link.new qwen-train.new; do
  case $each in "$now" | "$was" | '.qwen-train-*') ;; *) [ ! -e "$each" ] || echo "{ENVS}/$each" ;; esac
done
ls -d /tmp/tmp.* /tmp/uv-* /tmp/pip-* /tmp/qwen-rig* /var/tmp/tmp.* "${{HOME:-/root}}"/.cache/qwen-rig/said.* \\
  {ENVS}/qwen-train/.rig/try.* {ENVS}/qwen-train/.rig/*.new {JOBS}/*/pipe.* {JOBS}/*/room.* 2>/dev/null""").split()

    def overlaps(self) -> list[str]:
        """Jobs that began while another of their step was at work, or twice: out of the host's own journal."""
        rows = [line.split()[1:] for line in self.on(f"cat {JOBS}/journal 2>/dev/null").splitlines()]
        begun, ended, at_work, wrong = set[str](), {row[2] for row in rows if row[:1] == ["end"]}, dict[str, str](), []
        for what, step, run, *_ in (row for row in rows if len(row) >= 3):
            if what == "end":
                at_work.pop(step, None)
            elif run in begun or at_work.get(step) in ended:
                wrong.append(f"{step}: {run} began while {at_work.get(step)} was at work")
            if what == "start":
                begun.add(run)
                at_work[step] = run
        return wrong


def card(said: str) -> str:
    """The host's card out of what a run printed, its words joined over the frame's line ends; "" for none."""
    found = re.search(rf"─ ✗ {HOST} ─.*?╰", said, re.DOTALL)
    return " ".join(line.strip("│ ") for line in found[0].splitlines()) if found else ""
