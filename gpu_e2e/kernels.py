"""The parts that prove kernels which the machine lacks: the kit brings their packages in folders of their own."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from pathlib import Path

from .machine import Machine, add_packages, env
from .runner import PYINFRA, Runner, unchanged


def gated_delta(run: Runner) -> None:
    """The rule of a hybrid's linear layers, by what the env has, and by flash-linear-attention with a Triton that it
    takes on this card, where the kit brought them."""
    _rule(run, "as the env is", [], (0, 3))
    if wheels := sorted(_folder(run.machine, "beside").glob("*.whl")):
        _rule(run, "flash-linear-attention", wheels, (0,))


def fa4(run: Runner) -> None:
    """flash-attn 4 by `flash_attn=fa4`: installed by its lock, proven, kept or not; a second run changes nothing."""
    pieces = sorted(_folder(run.machine, "fa4").glob("piece.*"))
    run.expect(bool(pieces), "flash-attn 4's packages, which `python -m gpu_e2e kit` puts beside the kit")
    brought = run.machine.work / "fa4"
    if not brought.exists():
        with tarfile.open(fileobj=io.BytesIO(b"".join(piece.read_bytes() for piece in pieces))) as archive:
            archive.extractall(brought)  # our own, made by kit.py
        add_packages(run.machine, brought)
    words = [*PYINFRA, "--data", "flash_attn=fa4"]
    run.command(*words)
    right(run, "fa4")
    unchanged(run, run.command(*words))


def right(run: Runner, rung: str) -> None:
    """The record of the attempt at flash-attn, in which that rung is right, kept or not."""
    record = json.loads((env(run.machine) / ".rig/flash_attn.json").read_text())
    run.part.figures = {"record": record}
    row = next((each for each in record["tried"] if each["rung"] == rung), {"why_not": "not tried"})
    run.expect(row["why_not"] is None or "no faster than SDPA" in row["why_not"], f"kernels that are right: {row}")


def _rule(run: Runner, name: str, wheels: list[Path], good: tuple[int, ...]) -> None:
    """Run the proof that travels to hosts, with those wheels unpacked before the env's own packages."""
    beside = run.machine.work / "beside" / name
    for path in [] if beside.exists() else wheels:
        with zipfile.ZipFile(path) as wheel:
            wheel.extractall(beside)
    for program in beside.glob("triton/backends/nvidia/bin/*"):
        program.chmod(0o755)
    said = run.command("env", f"PYTHONPATH={beside}", str(env(run.machine) / "bin/python"),
                       str(run.machine.product / "qwen_rig/host/gated_delta.py"), good=good)
    run.part.figures[name] = json.loads(said.strip().splitlines()[-1])


def _folder(machine: Machine, name: str) -> Path:
    """Where the kit's packages of that name lie."""
    return machine.kit.with_name(f"{machine.kit.name}-{name}")
