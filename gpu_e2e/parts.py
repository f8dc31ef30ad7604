"""The parts of the run: each is the documented command lines, what must come of them, and the figures they gave.

A part that has succeeded isn't run again; one that ran out of time says what goes on, and goes on when called again.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .machine import HOST, Machine, up

PART_S = 480  # a part at most
CUT_S = 60  # a build's controller lives so long
PYINFRA = ["pyinfra", "-y", "inventories/lab.py", "deploy/5090.py"]
RIG = ["python", "-m", "qwen_rig"]
BUSY = ("import torch, time; kept = torch.empty(8 << 30, dtype=torch.uint8, device='cuda'); print('busy', flush=True); "
        "time.sleep(600)")

# A random Qwen3 of 0.6 billion parameters, in the shape of Qwen/Qwen3-0.6B's config.json, with a small tokenizer.
MODEL = """
import sys
sys.path.insert(0, sys.argv[1])
import torch
from tiny_qwen import tokenizer
from transformers import Qwen3Config, Qwen3ForCausalLM
with torch.device("cuda"):
    made = Qwen3ForCausalLM(Qwen3Config(vocab_size=151936, hidden_size=1024, intermediate_size=3072,
        num_hidden_layers=28, num_attention_heads=16, num_key_value_heads=8, head_dim=128, tie_word_embeddings=True))
made.to(torch.bfloat16).save_pretrained(sys.argv[2])
tokenizer().save_pretrained(sys.argv[2])
print(sum(each.numel() for each in made.parameters()))
"""


class Failed(Exception):
    """What a part should have come to, and what it came to."""


class GoesOn(Exception):
    """A part that isn't at its end: what goes on, and how to go on."""


@dataclass
class Command:
    """One command line: its exit code, its seconds, the end of what it printed."""

    argv: list[str]
    code: int
    seconds: float
    said: str


@dataclass
class Part:
    """One part's commands and figures; `why` where it failed or goes on."""

    name: str
    state: str = "failed"  # done · failed · goes on
    why: str = ""
    began: float = 0.0
    seconds: float = 0.0
    commands: list[Command] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)


class Runner:
    """A part at work: runs commands below its time limit and keeps what they said."""

    def __init__(self, machine: Machine, part: Part) -> None:
        self.machine, self.part, self._end = machine, part, time.monotonic() + PART_S

    def left(self) -> float:
        return self._end - time.monotonic()

    def command(self, *argv: str, good: tuple[int, ...] = (0,), limit: float | None = None) -> str:
        """Run a command of the product; what it printed. Raises Failed for another exit code than the good ones."""
        seconds, start = max(5.0, min(limit or self.left(), self.left())), time.monotonic()
        print(f"--- {self.part.name}: {' '.join(argv)}", flush=True)
        with subprocess.Popen(argv, cwd=self.machine.product, env=self.machine.environment(), stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
                              start_new_session=True) as made:
            try:
                said, _ = made.communicate(timeout=seconds)
            except subprocess.TimeoutExpired:
                os.killpg(made.pid, signal.SIGKILL)
                said, _ = made.communicate()
        took = time.monotonic() - start
        print(said, flush=True)
        self.part.commands.append(Command(list(argv), made.returncode, round(took, 1), said[-6000:]))
        if made.returncode not in good:
            raise Failed(f"{' '.join(argv)}: exit {made.returncode} after {took:.0f} s, expected {good}")
        return said

    def expect(self, right: bool, what: str) -> None:
        if not right:
            raise Failed(what)


def ready(run: Runner) -> None:
    """The machine is a host: venv, sshd, index, stack."""
    up(run.machine)
    run.part.figures = {"lock_lines": (run.machine.product / "device.lock.txt").read_text().count("\n"),
                        "machine": run.machine.ask("import platform; print(platform.platform())")}


def dry(run: Runner) -> None:
    """What would change; nothing does."""
    said = run.command("pyinfra", "inventories/lab.py", "deploy/5090.py", "--dry")
    run.expect("Env qwen-train" in said and not (_env(run.machine) / ".rig").exists(), "a dry run that changes nothing")


def cut(run: Runner) -> None:
    """The controller is killed within the env's step; nothing half done counts as done."""
    run.command("timeout", "-s", "KILL", "12", *PYINFRA, good=(137, -9))


def apply(run: Runner) -> None:
    """Bare (or cut) to proven."""
    run.command(*PYINFRA)
    record = json.loads((_env(run.machine) / ".rig/verification.json").read_text())
    run.part.figures = {"env_mib": _mib(_env(run.machine).resolve()), "checks": record.get("checks")}


def again(run: Runner) -> None:
    """The second run changes nothing."""
    said = run.command(*PYINFRA)
    rows = re.findall(r"^ +(?:\w[\w -]* \| .*?|Grand total) +1 +(\S+) +(\S+) +(\S+) *$", said, re.M)
    run.expect(bool(rows) and all(row[0] == "-" for row in rows), "a second run without changes")
    run.command(*RIG, "plan")
    run.part.figures = {"seconds": run.part.commands[0].seconds, "operations": len(rows) - 1}


def certify(run: Runner) -> None:
    """Two certificates of the card, and what differs between them."""
    for _ in range(2):
        run.command("pyinfra", "-y", "inventories/lab.py", "deploy/certify.py")
    run.command(*RIG, "certificate", "diff", HOST)
    run.command(*RIG, "certificate", "html", HOST, "-o", str(run.machine.work / "certificate.html"))
    run.part.figures = {"certificates": [json.loads(path.read_text()) for path in _certificates(run.machine)[-2:]]}


def doors(run: Runner) -> None:
    """The verbs that read."""
    for words in (["explain", HOST, "env"], ["fits", HOST], ["doctor", HOST], ["diff"], ["certificate", "list"]):
        run.command(*RIG, *words)
    run.command("pyinfra", "inventories/lab.py", "fact", "facts.gpu.Gpus", "--json")


def busy(run: Runner) -> None:
    """A certificate of a card that somebody uses is partial: it names who, and doesn't fill the memory."""
    with _user_of_the_card(run.machine) as pid:
        said = run.command("pyinfra", "-y", "inventories/lab.py", "deploy/certify.py")
        run.expect(f"pid {pid}" in said, f"the process {pid} that uses the card is named")
    made = json.loads(_certificates(run.machine)[-1].read_text())
    state = {row["name"]: row["status"] for row in made["checks"]}
    run.expect(made["overall"] == "partial" and state["memory"] == "not_run", "a partial certificate")
    run.part.figures = {"certificates": [made]}


def full(run: Runner) -> None:
    """A disk with too little room is refused before anything is fetched."""
    with _full(run.machine.work):
        said = run.command(*PYINFRA, "--data", "env_name=second", good=(1,))
    run.expect("MiB" in said or "GiB" in said, "the room that is missing is told")
    run.expect(not _env(run.machine, "second").exists(), "nothing was begun")


def build(run: Runner) -> None:
    """flash-attn is built; the first controller is killed with -9, the next attaches to the job."""
    kept = run.machine.work / "build-cut"
    words = ["--data", "flash_attn=build", "--data", f"flash_attn_jobs={_jobs()}"]
    if not kept.exists():
        kept.touch()
        run.command("timeout", "-s", "KILL", str(CUT_S), *PYINFRA, *words, good=(137, -9))
    said = run.command(*PYINFRA, *words, good=(0, -9))
    if run.part.commands[-1].code:
        raise GoesOn("the build goes on on the host: run this part again")
    record = json.loads((_env(run.machine) / ".rig/flash_attn.json").read_text())
    run.part.figures = {"record": record, "attached": "attached" in said}
    run.command(*PYINFRA, *words)


def train(run: Runner) -> None:
    """A fine-tuning of a random 0.6-billion Qwen3: its controller is killed with -9 and it goes on; it is stopped,
    resumed, fetched and evaluated."""
    work, env = run.machine.work, _env(run.machine)
    parameters = run.command(str(env / "bin/python"), "-c", MODEL, str(env / ".rig"), str(work / "model"))
    rows = [{"text": f"what comes after {n}? {n + 1} comes after {n}, as {n} comes after {n - 1}"} for n in range(2000)]
    (work / "data.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))  # the model has no chat template
    begin = [*RIG, "train", HOST, "--name", "trial", "--model_name_or_path", str(work / "model"), "--dataset_name",
             str(work / "data.jsonl"), "--max_steps", "200", "--save_steps", "20", "--max_length", "512"]
    run.command("timeout", "-s", "KILL", "45", *begin, good=(137, -9))
    looked = _document(run.command(*RIG, "runs", "look", "--json"))
    run.command(*RIG, "runs", "stop", "trial")
    run.command(*RIG, "runs", "resume", "trial")
    run.command(*RIG, "fetch", "trial", "-o", str(work / "adapter"))
    told = _document(run.command(*RIG, "eval", "trial", "--samples", "50", "--tokens", "16", "--json"))
    kept = json.loads((run.machine.home / ".local/state/qwen-rig/runs/trial.json").read_text())
    run.expect([row["step"] for row in kept["points"]] == list(range(1, 201)), "one loss curve of 200 steps")
    run.expect((work / "adapter/adapter_model.safetensors").is_file(), "the adapter, here")
    run.part.figures = {"parameters": int(parameters.split()[-1]), "after the kill": looked, "loss": told["loss"],
                        "loss_base": told["loss_base"], "points": kept["points"][::20], "settings": kept["settings"]}


def _document(said: str) -> Any:
    """The JSON document among what a command printed. Raises Failed where there is none."""
    found = re.search(r"^[\[{]", said, re.M)
    if found is None:
        raise Failed(f"no JSON in {said[-300:]!r}")
    return json.JSONDecoder().raw_decode(said[found.start():])[0]


def _jobs() -> int:
    """As many compile jobs as the machine has cores and memory for: the guide's 8 take 45 minutes, 16 took 24."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return max(1, min(os.cpu_count() or 1, memory // (6 << 30)))


PARTS: dict[str, Callable[[Runner], None]] = {each.__name__: each for each in (
    ready, dry, cut, apply, again, certify, doors, train, busy, full, build)}


def go(machine: Machine, name: str, anew: bool) -> Part:
    """Run one part, or tell how it ended before. Its record lies in the work folder."""
    path = machine.work / "parts" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and not anew:
        found = json.loads(path.read_text())
        if found["state"] == "done":
            return Part(**{**found, "commands": [Command(**each) for each in found["commands"]]})
    part = Part(name, began=time.time())
    try:
        PARTS[name](Runner(machine, part))
        part.state = "done"
    except GoesOn as why:
        part.state, part.why = "goes on", str(why)
    except (Failed, OSError, ValueError, LookupError, RuntimeError, subprocess.CalledProcessError) as why:
        part.why = f"{type(why).__name__}: {why}"
    part.seconds = round(time.time() - part.began, 1)
    path.write_text(json.dumps(asdict(part), indent=1))
    return part


def _env(machine: Machine, name: str = "qwen-train") -> Path:
    return machine.host_home / "miniforge3/envs" / name


def _certificates(machine: Machine) -> list[Path]:
    return sorted((machine.home / ".local/state/qwen-rig/certificates").glob("*/*.json"), key=lambda path: path.name)


def _mib(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_symlink() and path.is_file()) >> 20


@contextmanager
def _user_of_the_card(machine: Machine) -> Iterator[int]:
    """A process that holds 8 GiB of the card."""
    with subprocess.Popen([machine.torch_python, "-c", BUSY], stdout=subprocess.PIPE, text=True) as one:
        try:
            assert one.stdout is not None
            one.stdout.readline()
            yield one.pid
        finally:
            one.kill()


@contextmanager
def _full(folder: Path, left_mib: int = 500) -> Iterator[None]:
    """A disk on which so little is left."""
    found = os.statvfs(folder)
    path = folder / "filler"
    try:
        with path.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, max(1, found.f_bavail * found.f_frsize - (left_mib << 20)))
        yield
    finally:
        path.unlink(missing_ok=True)
