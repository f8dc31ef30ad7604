"""The guide's performance table, measured: what one training step gives on the card at hand.

    python benchmarks/training.py [--model half-billion] [--batch 8] [--length 1024] [--runs 5] > training-bench.json

Any Python with torch and transformers will do; it needs nothing else of this project. A random Qwen2 (no download)
takes the same full training step (forward, backward, AdamW) by each attention implementation and each precision:

    bf16   weights in bfloat16 and autocast, as the guide loads and trains
    tf32   fp32 with TF32 in the tensor cores
    fp32   fp32, TF32 switched off

A row is the median of several runs of several steps, after warm-up; rows are measured in turns (one run of each, then
again), so that a card that warms up slows them all alike. JSON goes to standard output, the table to standard error.
The guide's own figures (+5 % by Flash Attention 2, +15 % and +20 % by CUDA 12.8) were never measured by anybody we know
of, and none of them is repeated here. What CUDA 12.1 gives isn't told: that takes a second torch.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import platform
import statistics
import sys
import time
from typing import Any

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
                why = "flash-attn is not installed" if not flash else "" if precision == "bf16" and cuda else \
                    "flash-attn computes in 16 bits on a GPU only"
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
        weights = torch.bfloat16 if precision == "bf16" else torch.float32
        self.model = Qwen2ForCausalLM(config).to(device, weights).train()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-5)
        self.tokens = torch.randint(0, words, (batch, length), device=device)
        self.losses: list[float] = []

    def step(self) -> None:
        """One training step."""
        torch, cuda = self.torch, self.device.startswith("cuda")
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = self.precision != "fp32"
        with torch.autocast("cuda" if cuda else "cpu", dtype=torch.bfloat16, enabled=self.precision == "bf16"):
            loss = self.model(input_ids=self.tokens, labels=self.tokens).loss
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.losses.append(loss.detach())

    def run(self, steps: int) -> float:
        """Seconds a step, mean over `steps`."""
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


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """The whole record: what was measured, on what, with what."""
    import torch
    import transformers

    cuda = torch.cuda.is_available()
    device = f"cuda:{given.device}" if cuda else "cpu"
    if cuda:
        torch.cuda.set_device(given.device)
    wanted = rows_wanted(cuda, torch.cuda.get_device_capability() if cuda else None)
    times: dict[tuple[str, str], list[float]] = {(a, p): [] for a, p, why in wanted if not why}
    notes = {(a, p): why for a, p, why in wanted if why}
    peaks: dict[tuple[str, str], int] = {}
    ends: dict[tuple[str, str], float] = {}
    for run in range(given.runs):
        for attention, precision in [key for key in times if key not in notes]:
            say(f"run {run + 1} of {given.runs}: {attention}, {precision}")
            try:
                seconds, peak, loss = one(torch, given, attention, precision, device)
                times[attention, precision].append(seconds)
                peaks[attention, precision] = max(peak, peaks.get((attention, precision), 0))
                ends[attention, precision] = loss
            except torch.cuda.OutOfMemoryError:
                notes[attention, precision] = "out of memory: try a smaller --batch"
            except Exception as error:  # one row's failure is that row's
                notes[attention, precision] = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            if cuda:
                torch.cuda.empty_cache()
    rows = []
    for attention, precision, _ in wanted:
        found = times.get((attention, precision), [])
        good = bool(found) and (attention, precision) not in notes
        middle = statistics.median(found) if good else None
        rows.append({
            "attention": attention, "precision": precision, "seconds_a_step": middle, "runs": found if good else [],
            "tokens_a_second": given.batch * given.length / middle if middle else None,
            "spread": (max(found) - min(found)) / middle if middle else None,
            "peak_mib": (peaks.get((attention, precision)) or None) if good else None,
            "loss": ends.get((attention, precision)) if good else None,
            "not_run": notes.get((attention, precision)),
        })
    return {
        "schema": 1, "device": torch.cuda.get_device_name() if cuda else f"CPU ({platform.machine()})",
        "torch": torch.__version__, "cuda": torch.version.cuda, "transformers": transformers.__version__,
        "model": given.model, "batch": given.batch, "length": given.length, "steps_a_run": given.steps,
        "rows": rows, "not_measured": ["CUDA 12.1 against 12.8: it takes a second torch, built for 12.1"],
    }


def one(torch: Any, given: argparse.Namespace, attention: str, precision: str, device: str) -> tuple[float, int, float]:
    """Seconds a step, peak memory in MiB (0 on a CPU) and the last loss, of one run from a fresh model."""
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
    row = Row(torch, SHAPES[given.model], attention, precision, given.batch, given.length, device)
    row.run(WARM_UP)
    seconds = row.run(given.steps)
    loss = float(row.losses[-1])
    if not math.isfinite(loss):
        raise ValueError(f"the loss is {loss}")
    return seconds, torch.cuda.max_memory_allocated() >> 20 if device != "cpu" else 0, loss


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
                          f"{row['spread']:.1%}"])
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


def main() -> int:
    """Measure, show, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=SHAPES, default="half-billion")
    parser.add_argument("--batch", type=int, default=8, help="the guide's for a 5090")
    parser.add_argument("--length", type=int, default=1024)
    parser.add_argument("--steps", type=int, default=10, help="of a run, after 3 to warm up")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--device", type=int, default=0)
    given = parser.parse_args()
    for name in ("batch", "length", "steps", "runs"):
        if getattr(given, name) < 1:
            parser.error(f"--{name} must be 1 or more")
    for needed in ("torch", "transformers"):
        if importlib.util.find_spec(needed) is None:
            say(f"training.py: this Python has no {needed}: run it with the env's own (…/envs/qwen-train/bin/python)")
            return 1
    record = measure(given)
    show(record)
    print(json.dumps(record, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
