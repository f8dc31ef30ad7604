"""A stand-in for peft (README.md here)."""

import json
from contextlib import contextmanager
from pathlib import Path


class LoraConfig:
    def __init__(self, **options):
        self.options = options


class PeftModel:
    def __init__(self, model, step):
        self.model, self.step, self.config, self.off = model, step, model.config, False

    @classmethod
    def from_pretrained(cls, model, folder):
        return cls(model, json.loads(Path(folder, "adapter_model.safetensors").read_text())["step"])

    def merge_and_unload(self):
        self.model.merged = self.step
        return self.model

    @contextmanager
    def disable_adapter(self):
        self.off = True
        yield
        self.off = False

    def generate(self, input_ids, **_):
        return [input_ids[0] + ["as", "before" if self.off else f"trained-{self.step}"]]

    def __getattr__(self, name):
        return getattr(self.model, name)
