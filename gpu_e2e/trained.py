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

# A random Qwen in the shape that qwen_rig/data/models.yml has of its config.json, with a small tokenizer.
MODEL = """
import json, sys
sys.path.insert(0, sys.argv[1])
import torch, transformers
from tiny_qwen import tokenizer
kind = "TextConfig" if sys.argv[3].startswith("Qwen3_5") else "Config"
with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
    made = getattr(transformers, sys.argv[3] + "ForCausalLM")(
        getattr(transformers, sys.argv[3] + kind)(**json.loads(sys.argv[4])))
made.to(torch.bfloat16).save_pretrained(sys.argv[2])
tokenizer().save_pretrained(sys.argv[2])
print(sum(each.numel() for each in made.parameters()))
"""
SHAPE = """
import json, sys
from qwen_rig.catalog.models import find
model = find(sys.argv[1], "")
made = {key: getattr(model, key) for key in ("hidden_size", "intermediate_size", "num_hidden_layers",
    "num_attention_heads", "num_key_value_heads", "head_dim", "vocab_size", "tie_word_embeddings")}
if linear := model.linear_attention:
    made |= dict(linear_num_key_heads=linear.key_heads, linear_num_value_heads=linear.value_heads,
        linear_key_head_dim=linear.key_dim, linear_value_head_dim=linear.value_dim, linear_conv_kernel_dim=linear.conv,
        layer_types=["linear_attention" if (n + 1) % linear.full_every else "full_attention"
                     for n in range(model.num_hidden_layers)])
print(json.dumps([model.family, made]))
"""
# What `fits` says of the memory, less CUDA's own context, which PyTorch doesn't count. trl < 1.15 holds all logits.
NEED = """
import sys
from dataclasses import replace
from qwen_rig import fits
from qwen_rig.catalog.models import find
model = find(sys.argv[1], "")
if model.ways.logit_columns:
    model = replace(model, ways=replace(model.ways, logit=12, logit_columns=None, logit_tokens=None))
need = fits.need(model, sys.argv[2], int(sys.argv[3]), fits.LENGTH, False)
print(round(need.total - need.context))
"""
CARDS = """
import torch
print(max(1, torch.cuda.device_count()))
"""
SIZED = ("Qwen/Qwen3-0.6B", "Qwen/Qwen3.5-0.8B")
BATCH, SIZED_STEPS, WITHIN = 8, 20, 0.15


def model(run: Runner, name: str) -> tuple[Path, int]:
    """A folder with a random model of that shape, and its parameters."""
    folder = run.machine.work / "models" / name.rpartition("/")[2]
    family, shape = json.loads(run.command("python", "-c", SHAPE, name))
    said = run.command(str(env(run.machine) / "bin/python"), "-c", MODEL, str(env(run.machine) / ".rig"), str(folder),
                       family, json.dumps({**shape, **run.machine.model}))
    return folder, int(said.split()[-1])


def data(run: Runner) -> Path:
    """Texts that the model can learn; of one kind, as it has no chat template."""
    path = run.machine.work / "data.jsonl"
    rows = [{"text": ROW.format(n=n, next=n + 1, before=n - 1)} for n in range(400)]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def sizes(run: Runner) -> None:
    """LoRA and QLoRA of a dense and of a hybrid model: the memory that they take, beside `fits`, and their speed."""
    source, wrong, cards = data(run), [], int(run.machine.ask(CARDS))
    batch = BATCH * cards  # a process on each shares it
    run.part.figures["sizes"] = told = []
    for name in SIZED:
        folder, parameters = model(run, name)
        for method in ("lora", "qlora"):
            made = f"{folder.name.lower().replace('.', '-')}-{method}-{int(run.part.began)}"
            run.command(*words(run, made, folder, source, SIZED_STEPS), "--per_device_train_batch_size", str(batch),
                        "--gradient_accumulation_steps", "1", *(["--load_in_4bit"] if method == "qlora" else []))
            points = _kept(run, made)["points"]
            estimate = int(run.command("python", "-c", NEED, name, method, str(BATCH)))
            told.append({"model": name, "parameters": parameters, "method": method, "batch": BATCH,
                         "memory_mib": points[-1]["memory_mib"], "fits_mib": estimate,
                         "tokens_s": points[-1]["tokens_s"], "loss": [points[0]["loss"], points[-1]["loss"]]})
            if abs(estimate / points[-1]["memory_mib"] - 1) > WITHIN:
                wrong.append(f"{name} by {method}: {points[-1]['memory_mib']} MiB, by fits {estimate}")
            if not points[-1]["loss"] < points[0]["loss"]:
                wrong.append(f"{name} by {method}: the loss doesn't fall")
    run.part.figures["fits"] = document(run.command(*RIG, "fits", HOST, "--json"))
    run.expect(not wrong, "; ".join(wrong))


def train(run: Runner) -> None:
    """A fine-tuning of a random 0.6-billion Qwen3: its controller is killed with -9 and it goes on; it is stopped,
    resumed, fetched and evaluated."""
    work, figures = run.machine.work, run.part.figures
    folder, figures["parameters"] = model(run, SIZED[0])
    name = f"trial-{int(run.part.began)}"  # a name is one run
    _begun_and_killed(run, name, words(run, name, folder, data(run)))
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


def words(run: Runner, name: str, folder: Path, source: Path, steps: int = STEPS) -> list[str]:
    """The command line that trains. The card may be shared: flash-attn's build has it open."""
    return [*RIG, "train", HOST, "--name", name, "--model_name_or_path", str(folder), "--dataset_name", str(source),
            "--max_steps", str(steps), "--save_steps", "20", "--data", "allow_busy_gpu=true"]


def _begun_and_killed(run: Runner, name: str, argv: list[str]) -> None:
    """Begin the run, and kill its controller with -9 at a step in the middle."""
    told = run.machine.host_home / "qwen-rig/runs" / name / "progress.jsonl"
    with run.begun(*argv, good=(-9,)) as controller:
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
