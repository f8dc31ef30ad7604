"""Stack qwen3.5 as its lock has it: tiny random Qwens of every family that it says it trains, by chats, in 4 bits,
saved and resumed, on a CPU; and its transformers takes a kernel of the Hub from where attention.py lays it.
QWEN_RIG_QWEN35_PYTHON names a Python that has the stack; else one is built here by uv."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from qwen_rig.catalog.stack import load_stack
from qwen_rig.training import training_settings
from testbed import hub
from tests import HANG_S

pytestmark = pytest.mark.real
HOST = Path(__file__).parents[2] / "qwen_rig" / "host"
STACK = load_stack("qwen3.5")
MAKE = """
import sys, torch, transformers
sys.path.insert(0, sys.argv[1])
from tiny_qwen import tokenizer
words = tokenizer()
words.chat_template = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}<eos>{% endfor %}"
base = dict(vocab_size=len(words), hidden_size=64, intermediate_size=128, num_hidden_layers=4, num_attention_heads=4,
            num_key_value_heads=2, head_dim=16, pad_token_id=words.pad_token_id, eos_token_id=words.eos_token_id)
if sys.argv[2].startswith("Qwen3_5"):
    base |= dict(linear_num_key_heads=2, linear_num_value_heads=4, linear_key_head_dim=16, linear_value_head_dim=16)
if sys.argv[2].endswith("Moe"):
    base |= dict(num_experts=4, num_experts_per_tok=2, moe_intermediate_size=32)
kind = "TextConfig" if sys.argv[2].startswith("Qwen3_5") else "Config"
torch.manual_seed(0)
config = getattr(transformers, sys.argv[2] + kind)(**base)
getattr(transformers, sys.argv[2] + "ForCausalLM")(config).save_pretrained(sys.argv[3])
words.save_pretrained(sys.argv[3])
"""


@pytest.mark.parametrize("family", STACK.trains)
def test_a_tiny_one_trains_by_chats_saves_and_resumes(python: str, tmp_path: Path, family: str) -> None:
    subprocess.run([python, "-c", MAKE, str(HOST), family, str(tmp_path / "model")], check=True, timeout=HANG_S)
    chat = [{"role": "user", "content": "the quick"}, {"role": "assistant", "content": "brown fox jumps over the dog"}]
    (tmp_path / "chat.jsonl").write_text((json.dumps({"messages": chat}) + "\n") * 32)
    (tmp_path / "training.json").write_text(json.dumps(training_settings(12282, "8.9")))

    def train(*more: str) -> str:
        done = subprocess.run(
            [python, str(HOST / "train_qwen.py"), "--model_name_or_path", str(tmp_path / "model"), "--dataset_name",
             str(tmp_path / "chat.jsonl"), "--settings", str(tmp_path / "training.json"), "--output_dir",
             str(tmp_path / "out"), "--max_length", "64", "--learning_rate", "5e-3", "--save_steps", "2",
             "--gradient_accumulation_steps", "2", *more], text=True, capture_output=True, timeout=HANG_S,
            env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf")})
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    assert "after step 4" in train("--max_steps", "4", "--completion_only_loss", "--test_split_size", "0.2")
    losses = [row["loss"] for row in json.loads((tmp_path / "out" / "checkpoint-4" / "trainer_state.json").read_text())[
        "log_history"] if "loss" in row]
    assert len(losses) == 4 and losses[-1] < losses[0]
    assert "after step 6" in train("--max_steps", "6", "--completion_only_loss", "--test_split_size", "0.2", "--resume")
    if not family.endswith("Moe"):
        assert "after step 2" in train("--max_steps", "2", "--load_in_4bit", "--output_dir", str(tmp_path / "q"))


USE = """
import sys, torch
sys.path.insert(0, sys.argv[1])
sys.modules["fla"] = None  # its kernels want a GPU
import flash_attn_check
from transformers import AutoModelForCausalLM
ids, seen = torch.arange(24)[None] % 20, []
for attention in (flash_attn_check.recorded(), "sdpa"):
    net = AutoModelForCausalLM.from_pretrained(sys.argv[2], attn_implementation=attention, dtype=torch.bfloat16)
    net(input_ids=ids, labels=ids).loss.backward()
    seen.append(torch.cat([each.grad.flatten() for each in net.parameters() if each.grad is not None]))
from kernels.utils import get_loaded_kernels
print([each.metadata.id for each in get_loaded_kernels()], ((seen[0] - seen[1]).norm() / seen[1].norm()).item() < 2e-2)
"""


@pytest.mark.parametrize("family", ["Qwen3", "Qwen3_5"])
def test_transformers_takes_the_hubs_kernel_from_its_folder_and_asks_nobody(python: str, tmp_path: Path,
                                                                            family: str) -> None:
    """The kernel is the testbed's stand-in: SDPA under the real one's name. Nobody is at the Hub's address."""
    subprocess.run([python, "-c", MAKE, str(HOST), family, str(tmp_path / "model")], check=True, timeout=HANG_S)
    rig = tmp_path / "rig"
    for name, text in hub.KERNEL_FILES.items():
        (rig / "kernels" / hub.KERNEL / hub.BUILD / name).parent.mkdir(parents=True, exist_ok=True)
        (rig / "kernels" / hub.KERNEL / hub.BUILD / name).write_bytes(text)
    shutil.copy(HOST / "flash_attn_check.py", rig)
    (rig / "flash_attn.json").write_text(json.dumps({"attention": hub.KERNEL}))
    done = subprocess.run([python, "-c", USE, str(rig), str(tmp_path / "model")], text=True, capture_output=True,
                          timeout=HANG_S, env={**os.environ, "HF_ENDPOINT": "http://127.0.0.1:9",
                                               "HF_HOME": str(tmp_path / "hf"), "CUDA_VISIBLE_DEVICES": ""})
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines()[-1] == "['_flash_attn2_cuda_standin'] True", done.stdout
