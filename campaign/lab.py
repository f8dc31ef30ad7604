"""Testbed hosts that a campaign breaks, the user's commands against them, and what is true of them by our own
eyes."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import yaml

from qwen_rig.catalog.stack import load_stack
from testbed import HostSpec, Testbed, cli, demo

REPO = Path(__file__).resolve().parents[1]
FIRST = "lab-01"
ENVS = "/root/miniforge3/envs"
JOBS = "/var/lib/qwen-rig/jobs"
TRIES, BUSY = 3, 3  # of a run on a machine with so many processes a core that want it
RUN_S = 900  # a run that takes longer hangs
ROOT_MIB = 2048  # a small system disk, so that a full one is soon full


@dataclass(frozen=True)
class Run:
    """One of our processes, finished. `code` None: it hung and was ended."""

    code: int | None
    said: str

    @property
    def starved(self) -> bool:
        """Whether a host was too slow because this machine, which all the hosts are on, has too much to do."""
        return "did not come to an end within" in self.said and os.getloadavg()[0] > BUSY * (os.cpu_count() or 1)

    def outcome(self, host: str) -> str:
        """What the recap says of a host, `✓ no change` and the like; "" where there is no row."""
        row = re.search(rf"^{host} +([✓✗] [a-z]+(?: [a-z]+)*)", self.said, re.MULTILINE)
        if re.search(rf"^No changes\. .*\b{host}\b", self.said, re.MULTILINE):
            return "✓ no change"
        return row[1] if row else ""

    def card(self, host: str) -> str:
        """The host's card, its words joined over the frame's line ends; "" for none."""
        found = re.search(rf"─ ✗ {host} ─.*?╰", self.said, re.DOTALL)
        return " ".join(line.strip("│ ") for line in found[0].splitlines()) if found else ""


class Lab:
    """The hosts, their inventory, and commands against them. The first one converges from nothing, and the others start
    from its disk."""

    def __init__(self, bed: Testbed, folder: Path, count: int, kind: Literal["metal", "vm"] = "metal") -> None:
        self.bed, self.folder = bed, folder
        demo.fetch(load_stack("standin"))
        bare = HostSpec(FIRST, driver="580.95.05:open", kind=kind)
        self.infos = bed.up([bare])
        self._inventory()
        self.first = self.run()
        if self.first.code == 0:
            image = bed.commit(FIRST, f"campaign-{os.getpid()}")
            try:
                self.infos = bed.up([replace(bare, name=f"lab-{n:02}", image=image, root_mib=ROOT_MIB)
                                     for n in range(1, count + 1)])
            except BaseException:
                shutil.rmtree(image)
                raise
            self._image = image
            self._inventory()
            self.first = self.run()
        self.spots = [Spot(self, info.name) for info in self.infos]

    def close(self) -> None:
        """The image of the first host goes."""
        if self._image:
            shutil.rmtree(self._image, ignore_errors=True)

    _image = ""

    def _inventory(self) -> None:
        self.file = cli.inventory(self.bed)
        data = yaml.safe_load(self.file.read_text(encoding="utf-8"))
        known = self.folder / f"known_hosts-{len(self.infos)}"
        data["defaults"].update(stack="standin", flash_attn="off", known_hosts=str(known))
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
        for _ in range(TRIES):
            run = self.end(self.begin(said, *arguments, within=within, **environment), said)
            if not run.starved:
                break
        return run


class Spot:
    """One host of the lab."""

    def __init__(self, lab: Lab, host: str) -> None:
        self.lab, self.host, self.bed = lab, host, lab.bed

    def on(self, script: str, check: bool = False) -> str:
        """What a script prints on the host, past SSH."""
        return self.bed.exec_(self.host, ["sh", "-c", script], check=check, timeout=RUN_S).stdout

    def sound(self) -> str:
        """What is wrong with the env, by its own import and its link; "" where it can be used."""
        gate = load_stack("standin").import_gate
        done = self.bed.exec_(self.host, ["timeout", "120", f"{ENVS}/qwen-train/bin/python", "-c", gate], timeout=RUN_S)
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

