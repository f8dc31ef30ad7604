"""The part that fine-tunes: what `qwen-rig train` and its verbs come to on this card."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from .machine import HOST, env
from .runner import RIG, Failed, Runner, document

STEPS, KILLED_AT = 200, 30  # of the run; the step at which its controller is killed
ROW = "what comes after {n}? {next} comes after {n}, as {n} comes after {before}. " * 24  # longer than a sample

# A random Qwen3 of 0.6 billion parameters, in the shape of Qwen/Qwen3-0.6B's config.json, with a small tokenizer.
MODEL = """
import json, sys
sys.path.insert(0, sys.argv[1])
import torch
from tiny_qwen import tokenizer
from transformers import Qwen3Config, Qwen3ForCausalLM
with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
    made = Qwen3ForCausalLM(Qwen3Config(**{**dict(vocab_size=151936, hidden_size=1024, intermediate_size=3072,
        num_hidden_layers=28, num_attention_heads=16, num_key_value_heads=8, head_dim=128, tie_word_embeddings=True),
        **json.loads(sys.argv[3])}))
made.to(torch.bfloat16).save_pretrained(sys.argv[2])
tokenizer().save_pretrained(sys.argv[2])
print(sum(each.numel() for each in made.parameters()))
"""


def train(run: Runner) -> None:
    """A fine-tuning of a random 0.6-billion Qwen3: its controller is killed with -9 and it goes on; it is stopped,
    resumed, fetched and evaluated."""
    work, figures = run.machine.work, run.part.figures
    said = run.command(str(env(run.machine) / "bin/python"), "-c", MODEL, str(env(run.machine) / ".rig"),
                       str(work / "model"), json.dumps(run.machine.model))
    figures["parameters"] = int(said.split()[-1])
    rows = [{"text": ROW.format(n=n, next=n + 1, before=n - 1)} for n in range(400)]
    (work / "data.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))  # the model has no chat template
    name = f"trial-{int(run.part.began)}"  # a name is one run
    _begun_and_killed(run, name)
    figures["after the kill"] = document(run.command(*RIG, "runs", "look", "--json"))
    run.command(*RIG, "runs", "stop", name)
    figures["stopped at"] = _kept(run, name)["points"][-1:]
    run.command(*RIG, "runs", "resume", name)
    kept = _kept(run, name)
    figures |= {"points": kept["points"][::20], "last": kept["points"][-1:], "settings": kept["settings"],
                "result": kept["result"], "launch": kept["env"].get("launch")}
    run.expect([row["step"] for row in kept["points"]] == list(range(1, STEPS + 1)), f"one loss curve of {STEPS} steps")
    run.expect(kept["points"][-1]["loss"] < kept["points"][0]["loss"], "a loss that falls")
    run.command(*RIG, "fetch", name, "-o", str(work / name))
    run.expect((work / name / "adapter_model.safetensors").is_file(), "the adapter, here")
    told = document(run.command(*RIG, "eval", name, "--samples", "50", "--tokens", "16", "--json"))
    figures |= {"loss": told["loss"], "loss_base": told["loss_base"]}
    run.expect(told["loss"] < told["loss_base"], "an adapter that has learnt")


def words(run: Runner, name: str) -> list[str]:
    """The command line that trains. The card may be shared: flash-attn's build has it open."""
    return [*RIG, "train", HOST, "--name", name, "--model_name_or_path", str(run.machine.work / "model"),
            "--dataset_name", str(run.machine.work / "data.jsonl"), "--max_steps", str(STEPS), "--save_steps", "20",
            "--data", "allow_busy_gpu=true"]


def _begun_and_killed(run: Runner, name: str) -> None:
    """Begin the run, and kill its controller with -9 at a step in the middle."""
    told = run.machine.host_home / "qwen-rig/runs" / name / "progress.jsonl"
    with run.begun(*words(run, name), good=(-9,)) as controller:
        while controller.poll() is None and run.left() > 0 and _step(told) < KILLED_AT:
            time.sleep(0.2)
    if _step(told) < KILLED_AT:
        raise Failed(f"the run is at step {_step(told)}, expected {KILLED_AT}")


def _step(told: Path) -> int:
    rows = told.read_text().splitlines() if told.exists() else []
    return int(json.loads(rows[-1])["step"]) if rows and rows[-1].endswith("}") else 0


def _kept(run: Runner, name: str) -> Any:
    """The run's record, here."""
    return json.loads((run.machine.home / f".local/state/qwen-rig/runs/{name}.json").read_text())
