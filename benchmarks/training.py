"""The guide's performance table, measured: what one training step gives on the card at hand.

    python benchmarks/training.py [--model half-billion] [--batch 8] [--length 1024] [--seconds 150] [--output FILE]

Any Python with torch and transformers will do; it needs nothing else of this project (rich only draws the table). A
random Qwen2 (no download) takes the same full training step (forward, backward, AdamW) by each attention implementation
and each precision:

    bf16   weights in bfloat16 and autocast, as the guide loads and trains
    tf32   fp32 with TF32 in the tensor cores
    fp32   fp32, TF32 switched off

A row is the median of several runs of several steps, each run after warm-up; rows are measured in turns (one run of
each, then again), so that a card that warms up slows them all alike. Each run is told as it ends, and --output is
written anew after each, so that a run that is killed keeps what it had. No run is begun that would end after --seconds,
which count from the start of the program. JSON goes to standard output (or --output), the table to standard error.
The guide's own figures (+5 % by Flash Attention 2, +15 % and +20 % by CUDA 12.8) were never measured by anybody we know
of, and none of them is repeated here. What CUDA 12.1 gives isn't told: that takes a second torch.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import json
import math
import platform
import signal
import statistics
import sys
import time
from pathlib import Path
from typing import Any

STARTED = time.monotonic()  # --seconds counts the import of torch too

# The shapes of Qwen2.5-0.5B and 1.5B (their config.json: hidden_size, intermediate_size, num_hidden_layers,
# num_attention_heads, num_key_value_heads, vocab_size), and one for a CPU's try.
SHAPES = {
    "tiny": (128, 256, 2, 4, 2, 1000),
    "half-billion": (896, 4864, 24, 14, 2, 151936),
    "1.5-billion": (1536, 8960, 28, 12, 2, 151936),
}
PRECISIONS = ("bf16", "tf32", "fp32")
WARM_UP = 3  # steps; kernels are chosen and memory is laid out in them


def rows_wanted(cuda: bool, capability: tuple[int, int] | None) -> list[tuple[str, str, str]]:
    """(attention, precision, why not), in the table's order; the last is '' where the row can be measured."""
    flash = importlib.util.find_spec("flash_attn") is not None
    rows = []
    for attention in ("sdpa", "flash_attention_2"):
        for precision in PRECISIONS:
            why = ""
            if attention == "flash_attention_2":
                able = cuda and precision == "bf16" and (capability or (0, 0)) >= (8, 0)
                why = "flash-attn is not installed" if not flash else "" if able else \
                    "flash-attn computes in 16 bits on a GPU of compute capability 8.0 or more only"
            if precision == "tf32" and (not cuda or (capability or (0, 0)) < (8, 0)):
                why = why or "TF32 takes a GPU of compute capability 8.0 or more"
            rows.append((attention, precision, why))
    return rows


class Row:
    """A fresh model of that attention and precision, and its training step."""

    def __init__(self, torch: Any, shape: tuple[int, ...], attention: str, precision: str, batch: int, length: int,
                 device: str) -> None:
        from transformers import Qwen2Config, Qwen2ForCausalLM

        hidden, inner, layers, heads, groups, words = shape
        config = Qwen2Config(vocab_size=words, hidden_size=hidden, intermediate_size=inner, num_hidden_layers=layers,
                             num_attention_heads=heads, num_key_value_heads=groups, max_position_embeddings=length,
                             use_cache=False, tie_word_embeddings=True)
        config._attn_implementation = attention
        torch.manual_seed(0)
        self.torch, self.device, self.precision = torch, device, precision
        with torch.device(device):  # random weights made there: on the CPU it takes longer than the whole row
            model = Qwen2ForCausalLM(config)
        self.model = model.to(device, torch.bfloat16 if precision == "bf16" else torch.float32).train()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-5)
        self.tokens = torch.randint(0, words, (batch, length), device=device)
        self.loss: Any = None

    def step(self) -> None:
        """One training step."""
        torch, cuda = self.torch, self.device.startswith("cuda")
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = self.precision != "fp32"
        with torch.autocast("cuda" if cuda else "cpu", dtype=torch.bfloat16, enabled=self.precision == "bf16"):
            loss = self.model(input_ids=self.tokens, labels=self.tokens).loss
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.loss = loss.detach()

    def run(self, steps: int) -> float:
        """Seconds a step, mean over `steps`; those of the GPU's own clock where there is one."""
        if self.device.startswith("cuda"):
            begin, end = (self.torch.cuda.Event(enable_timing=True) for _ in "ab")
            begin.record()
            for _ in range(steps):
                self.step()
            end.record()
            self.torch.cuda.synchronize()
            return float(begin.elapsed_time(end)) / 1000 / steps
        since = time.perf_counter()
        for _ in range(steps):
            self.step()
        return (time.perf_counter() - since) / steps


def one(torch: Any, given: argparse.Namespace, attention: str, precision: str, device: str) -> tuple[float, int, float]:
    """Seconds a step, peak memory in MiB (0 on a CPU) and the last loss, of one run from a fresh model."""
    cuda = device != "cpu"
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    row = Row(torch, SHAPES[given.model], attention, precision, given.batch, given.length, device)
    row.run(WARM_UP)
    seconds = row.run(given.steps)
    loss = float(row.loss)
    if not math.isfinite(loss):
        raise ValueError(f"the loss is {loss}")
    return seconds, torch.cuda.max_memory_allocated() >> 20 if cuda else 0, loss


class Bench:
    """The rows and what was measured of them so far."""

    def __init__(self, given: argparse.Namespace) -> None:
        import torch
        import transformers

        self.given, self.torch = given, torch
        self.cuda = torch.cuda.is_available()
        self.device = f"cuda:{given.device}" if self.cuda else "cpu"
        if self.cuda:
            torch.cuda.set_device(given.device)
        wanted = rows_wanted(self.cuda, torch.cuda.get_device_capability() if self.cuda else None)
        self.rows: dict[tuple[str, str], dict[str, Any]] = {
            (a, p): {"attention": a, "precision": p, "runs": [], "peak_mib": None, "loss": None, "not_run": why or None}
            for a, p, why in wanted}
        self.took: dict[tuple[str, str], float] = {}  # seconds of the row's last run, all in
        self.about = {
            "schema": 2, "device": torch.cuda.get_device_name() if self.cuda else f"CPU ({platform.machine()})",
            "torch": torch.__version__, "cuda": torch.version.cuda, "transformers": transformers.__version__,
            "python": platform.python_version(), "model": given.model, "batch": given.batch, "length": given.length,
            "steps_a_run": given.steps, "warm_up_steps": WARM_UP,
        }

    def measure(self) -> None:
        """Runs of each row in turn, as many as were asked for and as fit into the time."""
        for run in range(self.given.runs):
            for key, row in self.rows.items():
                if row["not_run"]:
                    continue
                if time.monotonic() - STARTED + self.took.get(key, 0) > self.given.seconds:
                    if not row["runs"]:
                        row["not_run"] = f"the {self.given.seconds} s were over"
                    continue
                self._once(run, key, row)
                if self.given.output:
                    self.save()

    def _once(self, run: int, key: tuple[str, str], row: dict[str, Any]) -> None:
        name, since = f"run {run + 1} of {self.given.runs}: {key[0]}, {key[1]}", time.monotonic()
        try:
            seconds, peak, loss = one(self.torch, self.given, *key, self.device)
        except self.torch.cuda.OutOfMemoryError:
            row["not_run"] = "out of memory: try a smaller --batch"
        except Exception as error:  # one row's failure is that row's
            row["not_run"] = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        else:
            row["runs"].append(seconds)
            row.update(peak_mib=max(peak, row["peak_mib"] or 0) or None, loss=loss)
        gc.collect()
        if self.cuda:
            self.torch.cuda.empty_cache()
        self.took[key] = time.monotonic() - since
        say(f"{name}: {row['not_run']}" if row["not_run"] else
            f"{name}: {row['runs'][-1] * 1000:.1f} ms a step, "
            f"{self.given.batch * self.given.length / row['runs'][-1]:,.0f} tokens/s, loss {row['loss']:.3f} "
            f"({time.monotonic() - STARTED:.0f} s)")

    def record(self, cut: str | None = None) -> dict[str, Any]:
        """The whole record: what was measured, on what, with what. `cut`: why it ended before its time."""
        rows = []
        for row in self.rows.values():
            found = [] if row["not_run"] else row["runs"]
            middle = statistics.median(found) if found else None
            rows.append({
                **row, "runs": found, "seconds_a_step": middle,
                "tokens_a_second": self.given.batch * self.given.length / middle if middle else None,
                "spread": (max(found) - min(found)) / middle if middle and len(found) > 1 else None,
                "not_run": row["not_run"] or (None if found else cut or "not reached"),
            })
        return {**self.about, "seconds": round(time.monotonic() - STARTED, 1), "cut": cut, "rows": rows,
                "not_measured": ["CUDA 12.1 against 12.8: it takes a second torch, built for 12.1"]}

    def save(self, cut: str | None = None) -> None:
        """The record in --output, whole or not at all."""
        self.given.output.with_name(f"{self.given.output.name}.new").write_text(json.dumps(self.record(cut), indent=1))
        self.given.output.with_name(f"{self.given.output.name}.new").replace(self.given.output)


def say(text: str) -> None:
    """A word for people."""
    print(text, file=sys.stderr, flush=True)


def table(record: dict[str, Any]) -> list[list[str]]:
    """The rows as people read them, the step in fp32 by SDPA as 1."""
    base = next((r["seconds_a_step"] for r in record["rows"]
                 if (r["attention"], r["precision"]) == ("sdpa", "fp32")), None)
    lines = [["attention", "precision", "ms a step", "tokens/s", "× fp32 SDPA", "peak MiB", "spread"]]
    for row in record["rows"]:
        seconds = row["seconds_a_step"]
        if seconds is None:
            lines.append([row["attention"], row["precision"], "not run", "", "", "", ""])
        else:
            lines.append([row["attention"], row["precision"], f"{seconds * 1000:.1f}", f"{row['tokens_a_second']:,.0f}",
                          f"{base / seconds:.2f}" if base else "-", f"{row['peak_mib']:,}" if row["peak_mib"] else "-",
                          f"{row['spread']:.1%} of {len(row['runs'])}" if row["spread"] is not None else "1 run"])
    return lines


def show(record: dict[str, Any]) -> None:
    """The table on standard error: rich where there is one, plain columns elsewhere."""
    lines = table(record)
    say(f"{record['device']} · torch {record['torch']} · model {record['model']}, batch {record['batch']} × "
        f"{record['length']} tokens, random weights, full training step")
    try:
        from rich.console import Console
        from rich.table import Table

        drawn = Table(*lines[0], box=None)
        for line in lines[1:]:
            drawn.add_row(*line)
        Console(stderr=True, width=None if sys.stderr.isatty() else 100).print(drawn, markup=False)
    except ImportError:
        widths = [max(len(line[n]) for line in lines) for n in range(7)]
        for line in lines:
            say("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    for row in record["rows"]:
        if row["not_run"]:
            say(f"not run: {row['attention']}, {row['precision']}: {row['not_run']}")
    for each in record["not_measured"]:
        say(f"not measured: {each}")


class Cut(BaseException):
    """Told to end: what was measured is shown. No row's own failure, so no Exception."""


def _cut(number: int, frame: object) -> None:
    raise Cut(f"cut short by {signal.Signals(number).name}")


def main() -> int:
    """Measure, show, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=SHAPES, default="half-billion")
    parser.add_argument("--batch", type=int, default=8, help="the guide's for a 5090")
    parser.add_argument("--length", type=int, default=1024)
    parser.add_argument("--steps", type=int, default=10, help=f"of a run, after {WARM_UP} to warm up")
    parser.add_argument("--runs", type=int, default=5, help="at most")
    parser.add_argument("--seconds", type=int, default=150, help="no run is begun that would end later")
    parser.add_argument("--device", type=int, default=0)
    parser.add_argument("--output", type=Path, metavar="FILE", help="the JSON, written anew after each run")
    given = parser.parse_args()
    for name in ("batch", "length", "steps", "runs", "seconds"):
        if getattr(given, name) < 1:
            parser.error(f"--{name} must be 1 or more")
    if given.output and not given.output.absolute().parent.is_dir():
        parser.error(f"--output: there is no folder {given.output.absolute().parent}")
    for needed in ("torch", "transformers"):
        if importlib.util.find_spec(needed) is None:
            say(f"training.py: this Python has no {needed}: run it with the env's own (…/envs/qwen-train/bin/python)")
            return 1
    bench, cut = Bench(given), None
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _cut)
    try:
        bench.measure()
    except Cut as error:
        cut = str(error)
        say(cut)
    show(bench.record(cut))
    if given.output:
        bench.save(cut)
    else:
        print(json.dumps(bench.record(cut), indent=1))
    return 1 if cut else 0


if __name__ == "__main__":
    sys.exit(main())
