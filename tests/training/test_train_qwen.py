"""train_qwen.py really trains: a tiny random Qwen2 saved to disk, a small JSONL, a checkpoint, and on from it.

It takes a Python with the guide's stack on a CPU torch: QWEN_RIG_TRAIN_PYTHON names one, else one is built here.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from qwen_rig.training import accelerate_config, training_settings
from tests import HANG_S

pytestmark = pytest.mark.real
HOST = Path(__file__).parents[2] / "qwen_rig" / "host"
# The guide's pins but for torch: this release has a CPU build in the index, and takes Python 3.10 to 3.14.
PINS = ("torch==2.13.0", "transformers==4.46.0", "accelerate==0.34.0", "peft==0.13.0", "trl==0.11.0",
        "datasets==3.1.0", "rich")
SAVE = """
import sys
sys.path.insert(0, sys.argv[1])
import torch
from tiny_qwen import model, tokenizer
words = tokenizer()
model(torch, words, "Qwen2", "tiny", torch.float32, "sdpa", 64).save_pretrained(sys.argv[2])
words.save_pretrained(sys.argv[2])
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if named := os.environ.get("QWEN_RIG_TRAIN_PYTHON"):
        yield named
        return
    venv = tmp_path_factory.mktemp("venv")
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    subprocess.run([str(venv / "bin" / "python"), "-m", "pip", "install", "-q", *PINS], check=True)
    yield str(venv / "bin" / "python")


@pytest.fixture(scope="module")
def folder(python: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("train")
    subprocess.run([python, "-c", SAVE, str(HOST), str(made / "model")], check=True, timeout=HANG_S)
    rows = [{"text": f"the quick brown fox jumps over the lazy dog {n % 3}"} for n in range(64)]
    (made / "data.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (made / "training.json").write_text(json.dumps(training_settings(12282, "8.9")))  # 1 × 16
    return made


def _train(python: str, folder: Path, *more: str, launch: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [python, *launch, str(HOST / "train_qwen.py"), "--model_name_or_path", str(folder / "model"),
         "--dataset_name", str(folder / "data.jsonl"), "--settings", str(folder / "training.json"),
         "--output_dir", str(folder / "out"), "--max_length", "32", *more],
        cwd=folder, text=True, capture_output=True, timeout=HANG_S,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "hf"), "WANDB_MODE": "disabled"})
    print(done.stdout[-1500:], done.stderr[-1500:])
    return done


def test_it_trains_saves_and_goes_on_from_its_checkpoint(python: str, folder: Path) -> None:
    nothing = _train(python, folder, "--resume")
    assert nothing.returncode == 1
    assert nothing.stderr.strip().splitlines()[-1].startswith("train_qwen.py: no checkpoint")
    first = _train(python, folder, "--max-steps", "4", "--save-steps", "2")
    assert first.returncode == 0, first.stderr
    assert (folder / "out" / "checkpoint-2").is_dir() and "after step 4" in first.stdout
    assert (folder / "out" / "adapter_model.safetensors").is_file()
    losses = [float(each) for each in re.findall(r"'loss': '?([\d.]+)", first.stdout)]
    assert len(losses) == 4 and losses[-1] < losses[0], losses
    second = _train(python, folder, "--max-steps", "6", "--save-steps", "2", "--resume")
    assert second.returncode == 0, second.stderr
    assert len(re.findall(r"'loss': ", second.stdout)) == 2 and "after step 6" in second.stdout


def test_a_missing_data_file_is_one_line(python: str, folder: Path) -> None:
    done = _train(python, folder, "--dataset_name", "nowhere.jsonl")
    assert done.returncode == 1 and done.stderr.strip().splitlines()[-1] == (
        "train_qwen.py: there is no file nowhere.jsonl")


def test_accelerate_takes_our_config(python: str, folder: Path) -> None:
    """One process on the CPU; accelerate refuses a key that it doesn't know."""
    settings = json.loads((folder / "training.json").read_text())
    made = accelerate_config(settings, 1) | {"use_cpu": True, "mixed_precision": "no"}
    (folder / "accelerate.yaml").write_text(yaml.safe_dump(made))
    launch = ("-m", "accelerate.commands.launch", "--config_file", str(folder / "accelerate.yaml"))
    done = _train(python, folder, "--max-steps", "1", "--output_dir", str(folder / "one"), launch=launch)
    assert done.returncode == 0 and "after step 1" in done.stdout, done.stderr


def test_two_processes_share_the_effective_batch(python: str, folder: Path) -> None:
    """gloo on the CPU here; on cards it is NCCL, which this doesn't show."""
    launch = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    done = _train(python, folder, "--max-steps", "2", "--output_dir", str(folder / "two"), launch=launch)
    assert done.returncode == 0, done.stderr
    assert "2 processes: effective batch 16 (wanted 16)" in done.stdout and "after step 2" in done.stdout


def test_the_benchmark_measures_what_it_can_and_says_what_not(python: str, tmp_path: Path) -> None:
    kept = tmp_path / "bench.json"
    done = subprocess.run([python, str(HOST.parents[1] / "benchmarks" / "training.py"), "--model", "tiny", "--batch",
                           "2", "--length", "16", "--steps", "1", "--runs", "2", "--output", str(kept)], text=True,
                          capture_output=True, timeout=HANG_S)
    assert done.returncode == 0 and done.stdout == "", done.stderr
    rows = {(row["attention"], row["precision"]): row for row in json.loads(kept.read_text())["rows"]}
    assert len(rows) == 6 and len(rows["sdpa", "fp32"]["runs"]) == 2 and rows["sdpa", "fp32"]["tokens_a_second"] > 0
    assert "flash" in rows["flash_attention_2", "fp32"]["not_run"] and "TF32" in rows["sdpa", "tf32"]["not_run"]
    assert "run 1 of 2: sdpa, bf16: " in done.stderr  # told as it is measured


def test_a_benchmark_whose_time_is_over_shows_what_it_has(python: str) -> None:
    # Its clock runs from its own import, and torch's may take less than the second.
    later = "import sys, time; import training; time.sleep(1); sys.exit(training.main())"
    done = subprocess.run([python, "-c", later, "--model", "tiny", "--batch", "2", "--length", "16", "--steps", "1",
                           "--seconds", "1"], text=True, capture_output=True, timeout=HANG_S,
                          env={**os.environ, "PYTHONPATH": str(HOST.parents[1] / "benchmarks")})
    assert done.returncode == 0, done.stderr
    rows = {(row["attention"], row["precision"]): row for row in json.loads(done.stdout)["rows"]}
    assert rows["sdpa", "fp32"]["not_run"] == "the 1 s were over" and rows["sdpa", "fp32"]["seconds_a_step"] is None
