"""Travels with train_run.py: what a training tells of itself while it runs, and how it is stopped with a checkpoint.

train_qwen.py adds it to TRL's trainer where QWEN_RIG_RUN names a run. It takes SIGTERM and SIGINT (a shutdown, a spot
machine that is taken away; a launcher that got one) and the file `stop` in the run's folder for the same wish: a
checkpoint, then the end.

Of a run over several hosts, each keeps checkpoints of its own, which it goes on from; the first alone has the progress.
"""

import json
import os
import signal
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path

import torch
import train_files
import transformers
from transformers import TrainerCallback

BUSY_LETTERS = 2000
BEAT_S = 5  # between two signs of life of a host
SAVE_S = 1800  # that a checkpoint may take: what writes it may hold Python's lock, so that no sign is given meanwhile


class Follow(TrainerCallback):
    """One run as TRL's trainer tells of it."""

    def __init__(self, run):
        self.run, self.asked, self.stopped = Path(run), False, False
        self.began = (time.monotonic(), 0, 0)
        asked = train_files.read(self.run / "program" / "run.json") or {}
        self.hosts, self.silent_s, self.crew = asked.get("hosts") or [], asked.get("silent_s"), None

    def on_init_end(self, args, state, control, **_):
        if getattr(args, "include_num_input_tokens_seen", None) in (False, "no") and counts_tokens():
            args.include_num_input_tokens_seen = True
        if len(self.hosts) > 1:
            args.save_on_each_node = True

    def on_train_begin(self, args, state, control, model=None, **_):
        self.began = (time.monotonic(), state.global_step, state.num_input_tokens_seen)
        for number in (signal.SIGTERM, signal.SIGINT):  # a launcher passes on which it got
            signal.signal(number, self._ask)
        if state.is_local_process_zero:
            if len(self.hosts) > 1:
                self.crew = Crew(self.hosts, int(os.environ["GROUP_RANK"]), self.silent_s)
                self.crew.begin()
            config = getattr(model, "config", None)
            train_files.write(self.run / "begun.json", {
                "of": state.max_steps, "from": state.global_step, "at": int(time.time()),
                "revision": getattr(config, "_commit_hash", None)})

    def on_log(self, args, state, control, logs=None, **_):
        logs = logs or {}
        if not state.is_local_process_zero or not {"loss", "eval_loss"} & set(logs):
            return
        began, step, tokens = self.began
        seconds, done = max(1e-6, time.monotonic() - began), state.global_step - step
        row = {"step": state.global_step, "of": state.max_steps, "at": int(time.time()),
               **{name: float(logs[name]) for name in ("loss", "eval_loss") if name in logs},
               "tokens_s": round((state.num_input_tokens_seen - tokens) / seconds) or None,
               "left_s": round(seconds / done * (state.max_steps - state.global_step)) if done else None, **memory()}
        self._tell_others(row)
        if state.is_world_process_zero:
            with open(self.run / "progress.jsonl", "a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            # A line of its own, after whatever a progress bar left there.
            print(f"\n@train {json.dumps(row)}", flush=True)

    def on_step_end(self, args, state, control, **_):
        if self._wanted():
            self.stopped = state.global_step < state.max_steps
            control.should_save = control.should_training_stop = True
        if self.crew and control.should_save:
            self.crew.say("save")

    def on_save(self, args, state, control, **_):
        if self.crew:
            self.crew.say("step")
        if together():
            torch.distributed.barrier()  # the others write files of theirs, too
        if state.is_local_process_zero:
            out = Path(args.output_dir)
            train_files.seal(out / f"checkpoint-{state.global_step}", state.global_step)
            train_files.prune(out)

    def on_train_end(self, args, state, control, **_):
        if self.crew:
            self.crew.end()
        if state.is_local_process_zero:
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


class Crew:
    """The hosts of one training, of which this is number `own`: each gives a sign of life every few seconds, in the
    store that the launcher opened on the first. Where one gives none for `silent_s`, this host's trainer ends: a
    collective with a host that is gone waits far longer."""

    def __init__(self, hosts, own, silent_s):
        self.hosts, self.own, self.silent_s, self.over = hosts, own, silent_s, False
        self.word, self.count, self.store, self.lock = "step", 0, None, threading.Lock()
        self.until = {}

    def begin(self):
        now = time.monotonic()
        self.until = {n: now + self.silent_s for n in range(len(self.hosts)) if n != self.own}
        for act in (self._tell, self._watch):  # a store on a host that is gone may answer nothing for ever
            threading.Thread(target=act, daemon=True).start()

    def end(self):
        self.over = True

    def say(self, word):
        """Give a sign now, with what we are at: step or save."""
        with self.lock:
            self.word, self.count = word, self.count + 1
            if self.store:
                try:
                    self.store.set(f"qwen-rig/{self.own}", f"{word} {self.count}")
                except RuntimeError:
                    return  # _tell meets it, too

    def _tell(self):
        """Give our signs, and hear those of the others; the last one says that the training has ended."""
        try:
            self.store = torch.distributed.TCPStore(
                os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False, wait_for_workers=False,
                timeout=timedelta(seconds=self.silent_s))
            last, over = {}, False
            while not over:
                over = self.over
                self.say("end" if over else self.word)
                for n in self.until:
                    said = self.store.get(f"qwen-rig/{n}") if self.store.check([f"qwen-rig/{n}"]) else b""
                    if said != last.get(n, b"") or said.startswith(b"end"):
                        patience = max(SAVE_S, self.silent_s) if said.startswith(b"save") else self.silent_s
                        last[n], self.until[n] = said, time.monotonic() + patience
                if not over:
                    time.sleep(min(BEAT_S, self.silent_s / 4))
        except RuntimeError:  # the store is gone, and with it the first host: _watch tells
            return

    def _watch(self):
        before = time.monotonic()
        while not self.over:
            time.sleep(1)
            now = time.monotonic()
            stood, before = now - before, now
            if stood > 2:  # this process itself: nobody was heard meanwhile
                for n in self.until:
                    self.until[n] += stood
            # The first of them: the store was on the first of all.
            fallen = min((n for n, end in self.until.items() if now > end), default=None)
            if fallen is not None and not self.over:
                print(f"\nqwen-rig: {self.hosts[fallen]} fell away: no sign of life for {self.silent_s} s",
                      file=sys.stderr, flush=True)
                os._exit(76)


def counts_tokens():
    """Whether the trainer can count tokens: that of transformers 4.46 can't over several processes
    (huggingface/transformers#34503)."""
    return not together() or not transformers.__version__.startswith("4.46.")


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
