"""Fine-tune a Qwen2 or Qwen2.5 with LoRA, by the settings that were made for this host's card.

    python train_qwen.py --model Qwen/Qwen2.5-0.5B --data my.jsonl --output out

--model is a Hugging Face name or a folder; --data a .jsonl file with one {"text": …} a line. The settings are those of
training.json beside this file: change them there, or give another file with --settings.
"""

import argparse
import json
from pathlib import Path

import torch
from datasets import load_dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--output", default="qwen-lora")
    parser.add_argument("--settings", type=Path, default=Path(__file__).resolve().parent / "training.json")
    parser.add_argument("--max-steps", type=int, default=-1)
    parser.add_argument("--max-length", type=int, default=1024)
    given = parser.parse_args()
    settings = json.loads(given.settings.read_text())
    if not torch.cuda.is_available():
        print("No GPU: training on the CPU, in full precision. Good for a try, not for work.")
        settings.update(bf16=False, fp16=False, tf32=None, torch_dtype="float32", attn_implementation="sdpa",
                        device_map=None)

    tokenizer = AutoTokenizer.from_pretrained(given.model, trust_remote_code=settings["trust_remote_code"])
    model = AutoModelForCausalLM.from_pretrained(
        given.model,
        torch_dtype=getattr(torch, settings["torch_dtype"]),
        device_map=settings["device_map"],
        trust_remote_code=settings["trust_remote_code"],
        attn_implementation=settings["attn_implementation"],
        use_cache=settings["use_cache"],
    )
    trainer = SFTTrainer(
        model=model,
        tokenizer=tokenizer,
        train_dataset=load_dataset("json", data_files=given.data, split="train"),
        peft_config=LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"),
        args=SFTConfig(
            output_dir=given.output,
            dataset_text_field="text",
            max_seq_length=given.max_length,
            max_steps=given.max_steps,
            per_device_train_batch_size=settings["per_device_train_batch_size"],
            gradient_accumulation_steps=settings["gradient_accumulation_steps"],
            bf16=settings["bf16"],
            fp16=settings["fp16"],
            tf32=settings["tf32"],
            use_cpu=not torch.cuda.is_available(),
            learning_rate=2e-4,  # LoRA's usual; the guide names none
            logging_steps=1,
            report_to=[],
        ),
    )
    trainer.train()
    trainer.save_model(given.output)
    print(f"Saved the adapter in {given.output}")


if __name__ == "__main__":
    main()
