"""Travels with train_run.py: what a training tells of itself while it runs, and how it is stopped with a checkpoint.

train_qwen.py adds it to TRL's trainer where QWEN_RIG_RUN names a run. It takes SIGTERM and SIGINT (a shutdown, a spot
machine that is taken away; a launcher that got one) and the file `stop` in the run's folder for the same wish: a
checkpoint, then the end.
"""

import json
import os
import signal
import time
from pathlib import Path

import torch
import train_files
from transformers import TrainerCallback

BUSY_LETTERS = 2000


class Follow(TrainerCallback):
    """One run as TRL's trainer tells of it."""

    def __init__(self, run):
        self.run, self.asked, self.stopped = Path(run), False, False
        self.began = (time.monotonic(), 0, 0)

    def on_init_end(self, args, state, control, **_):
        if getattr(args, "include_num_input_tokens_seen", None) in (False, "no"):
            args.include_num_input_tokens_seen = True

    def on_train_begin(self, args, state, control, model=None, **_):
        self.began = (time.monotonic(), state.global_step, state.num_input_tokens_seen)
        for number in (signal.SIGTERM, signal.SIGINT):  # a launcher passes on which it got
            signal.signal(number, self._ask)
        if state.is_world_process_zero:
            config = getattr(model, "config", None)
            train_files.write(self.run / "begun.json", {
                "of": state.max_steps, "from": state.global_step, "at": int(time.time()),
                "revision": getattr(config, "_commit_hash", None)})

    def on_log(self, args, state, control, logs=None, **_):
        logs = logs or {}
        if not state.is_world_process_zero or not {"loss", "eval_loss"} & set(logs):
            return
        began, step, tokens = self.began
        seconds, done = max(1e-6, time.monotonic() - began), state.global_step - step
        row = {"step": state.global_step, "of": state.max_steps, "at": int(time.time()),
               **{name: float(logs[name]) for name in ("loss", "eval_loss") if name in logs},
               "tokens_s": round((state.num_input_tokens_seen - tokens) / seconds),
               "left_s": round(seconds / done * (state.max_steps - state.global_step)) if done else None, **memory()}
        with open(self.run / "progress.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        # A line of its own, after whatever a progress bar left there.
        print(f"\n@train {json.dumps(row)}", flush=True)
        self._tell_others(row)

    def on_step_end(self, args, state, control, **_):
        if self._wanted():
            self.stopped = state.global_step < state.max_steps
            control.should_save = control.should_training_stop = True

    def on_save(self, args, state, control, **_):
        if together():
            torch.distributed.barrier()  # the others write files of theirs, too
        if state.is_world_process_zero:
            out = Path(args.output_dir)
            train_files.seal(out / f"checkpoint-{state.global_step}", state.global_step)
            train_files.prune(out)

    def on_train_end(self, args, state, control, **_):
        if state.is_world_process_zero:
            train_files.write(self.run / "trained.json", {
                "state": "stopped" if self.stopped else "finished", "step": state.global_step, "of": state.max_steps})

    def _ask(self, number, frame):
        self.asked = True

    def _wanted(self):
        """Whether to stop; all processes of a training at the same step."""
        wish = self.asked or (self.run / "stop").exists()
        if not together():
            return wish
        device = "cuda" if torch.distributed.get_backend() == "nccl" else "cpu"
        flag = torch.tensor([int(wish)], device=device)
        torch.distributed.all_reduce(flag, op=torch.distributed.ReduceOp.MAX)
        return bool(flag.item())

    def _tell_others(self, row):
        """How far it is, for others on this host who wonder whose run it is (train_run.py holds the file's lock)."""
        if path := os.environ.get("QWEN_RIG_BUSY"):
            text = json.dumps({"run": self.run.name, "step": row["step"], "of": row["of"]})[:BUSY_LETTERS]
            try:
                with open(path, "r+", encoding="utf-8") as file:
                    file.write(text.ljust(BUSY_LETTERS // 10) + "\n")
                    file.truncate()
            except OSError:
                pass


def together():
    return torch.distributed.is_available() and torch.distributed.is_initialized() \
        and torch.distributed.get_world_size() > 1


def memory():
    """The most that torch has held of the fullest card, in MiB, and what that card has."""
    if not torch.cuda.is_available():
        return {}
    held = [(torch.cuda.max_memory_reserved(card), torch.cuda.get_device_properties(card).total_memory)
            for card in range(torch.cuda.device_count())]
    most, whole = max(held)
    return {"memory_mib": most >> 20, "memory_of": whole >> 20}
