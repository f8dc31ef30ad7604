"""A stand-in for trl (README.md here): steps, callbacks and checkpoints as the trainer of transformers has them."""

import json
import os
import time
from pathlib import Path
from types import SimpleNamespace

import torch


class SFTConfig:
    def __init__(self, output_dir="", max_steps=-1, num_train_epochs=1.0, per_device_train_batch_size=1,
                 gradient_accumulation_steps=1, save_steps=100, logging_steps=1, learning_rate=0.0, seed=0,
                 max_length=None, completion_only_loss=None, dataset_text_field=None, eval_strategy="no",
                 eval_steps=100, **_):
        self.__dict__.update({name: value for name, value in locals().items() if name not in ("self", "_")})
        self.include_num_input_tokens_seen = self.save_on_each_node = False


class SFTTrainer:
    def __init__(self, model=None, train_dataset=None, eval_dataset=None, peft_config=None, args=None, callbacks=None,
                 processing_class=None):
        self.model, self.data, self.args, self.callbacks = model, train_dataset, args, callbacks
        per_epoch = max(1, len(self.data) // (args.per_device_train_batch_size * args.gradient_accumulation_steps))
        steps = args.max_steps if args.max_steps > 0 else int(args.num_train_epochs * per_epoch)
        self.state = SimpleNamespace(global_step=0, max_steps=steps, num_input_tokens_seen=0,
                                     is_world_process_zero=self.is_world_process_zero(), is_local_process_zero=True)
        self._call("on_init_end")

    def is_world_process_zero(self):
        return os.environ.get("RANK", "0") == "0"

    def _call(self, name, **more):
        control = SimpleNamespace(should_save=False, should_training_stop=False)
        for each in self.callbacks or ():
            if act := getattr(each, name, None):
                act(self.args, self.state, control, model=self.model, **more)
        return control

    def train(self, resume_from_checkpoint=None):
        if resume_from_checkpoint:
            self.state.global_step = json.loads(Path(resume_from_checkpoint, "trainer_state.json").read_text())["step"]
        state, args = self.state, self.args
        self._call("on_train_begin")
        while state.global_step < state.max_steps:
            time.sleep(0 if Path(self.model.name, "go").exists() else self.model.config.step_s)
            while Path(self.model.name, "wait").exists():
                time.sleep(0.05)
            if args.per_device_train_batch_size > self.model.config.oom_above:
                raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB (stand-in)")
            state.global_step += 1
            state.num_input_tokens_seen += 100
            control = self._call("on_step_end")
            if state.global_step % args.logging_steps == 0:
                self._call("on_log", logs={"loss": 3 / (1 + state.global_step)})
            if control.should_save or state.global_step % args.save_steps == 0:
                self._save(Path(args.output_dir, f"checkpoint-{state.global_step}"))
                self._call("on_save")
            if control.should_training_stop:
                break
        self._call("on_train_end")

    def _save(self, folder):
        folder.mkdir(parents=True, exist_ok=True)
        Path(folder, f"rng_state_{os.environ.get('RANK', '0')}.pth").write_bytes(b"never fetched")
        if not self.is_world_process_zero() and not self.args.save_on_each_node:
            return
        self.save_model(folder)
        Path(folder, "optimizer.pt").write_bytes(b"never fetched")
        Path(folder, "trainer_state.json").write_text(json.dumps({"step": self.state.global_step}))

    def save_model(self, folder):
        if not self.is_world_process_zero() and not self.args.save_on_each_node:
            return
        Path(folder).mkdir(parents=True, exist_ok=True)
        weights = {"step": self.state.global_step, "weights": "x" * 100_000}
        Path(folder, "adapter_model.safetensors").write_text(json.dumps(weights))
        Path(folder, "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"}))

    def evaluate(self):
        off = getattr(self.model, "off", True)
        return {"eval_loss": 3.0 if off else 3 / (1 + self.model.step)}
