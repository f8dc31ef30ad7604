"""Fine-tune a Qwen with LoRA, by the settings that were made for this host's card.

    python train_qwen.py --model Qwen/Qwen2.5-0.5B --data my.jsonl --output out
    python train_qwen.py --model Qwen/Qwen2.5-0.5B --data my.jsonl --output out --resume
    accelerate launch --config_file accelerate.yaml train_qwen.py …        several cards
    sh launch.sh --model … --data …                                        several hosts (rig launch)

--model is a Hugging Face name or a folder; --data a .jsonl file with one {"text": …} a line. The settings are those of
training.json beside this file: change them there, or give another file with --settings.
"""

import argparse
import inspect
import json
import os
import sys
from pathlib import Path


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--output", default="qwen-lora")
    parser.add_argument("--settings", type=Path, default=Path(__file__).resolve().parent / "training.json")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint in --output")
    parser.add_argument("--max-steps", type=int, default=-1)
    parser.add_argument("--max-length", type=int, default=1024, help="tokens a text is cut at")
    parser.add_argument("--save-steps", type=int, default=100, help="steps between checkpoints")
    parser.add_argument("--gradient-checkpointing", action="store_true", help="less memory, about a third slower")
    given = parser.parse_args()
    for path in (given.data, given.settings):
        if not path.is_file():
            sys.exit(f"train_qwen.py: there is no file {path}")
    return given


def fitted(settings):
    """The settings fitted to this process: no GPU, or one of several processes that share the effective batch."""
    import torch

    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if not torch.cuda.is_available():
        print("No GPU: training on the CPU, in full precision. Good for a try, not for work.")
        settings.update(bf16=False, fp16=False, tf32=None, torch_dtype="float32", attn_implementation="sdpa",
                        device_map=None)
    elif processes > 1:  # each process has a card of its own
        settings["device_map"] = {"": int(os.environ.get("LOCAL_RANK", "0"))}
    if processes > 1:
        whole = settings["per_device_train_batch_size"] * settings["gradient_accumulation_steps"]
        batch = min(settings["per_device_train_batch_size"], max(1, whole // processes))
        accumulation = max(1, whole // (batch * processes))
        settings.update(per_device_train_batch_size=batch, gradient_accumulation_steps=accumulation)
        print(f"{processes} processes: effective batch {batch * accumulation * processes} (wanted {whole})")
    return settings


def accepted(function, **options):
    """Those options that a function takes: trl renames its own from release to release."""
    known = inspect.signature(function).parameters
    return {name: value for name, value in options.items() if name in known}


def allow_numpy_in_checkpoints():
    """Let torch.load read the random state in a checkpoint: NumPy's array and its integer type, nothing else.

    torch reads only plain tensors by default since 2.6, and transformers before 4.50 saves the state as it is
    (huggingface/transformers#34631).
    """
    import numpy
    import torch

    core = getattr(numpy, "_core", None) or numpy.core
    types = [core.multiarray._reconstruct, numpy.ndarray, numpy.dtype, type(numpy.dtype(numpy.uint32))]
    torch.serialization.add_safe_globals(types)


def main():
    given = arguments()
    settings = json.loads(given.settings.read_text())
    # Where models and data sets are kept, and where they come from: read when the libraries below are imported.
    for key, variable in (("hf_home", "HF_HOME"), ("hf_endpoint", "HF_ENDPOINT")):
        if settings.get(key):
            os.environ.setdefault(variable, settings[key])
    for variable, text in settings.get("environment", {}).items():  # what these cards need, by their certificates
        os.environ.setdefault(variable, text)
    train(given, settings)


def train(given, settings):
    import torch
    from datasets import load_dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.trainer_utils import get_last_checkpoint
    from trl import SFTConfig, SFTTrainer

    settings, checkpoint = fitted(settings), None
    if given.resume:
        checkpoint = get_last_checkpoint(given.output) if os.path.isdir(given.output) else None
        if checkpoint is None:
            sys.exit(f"train_qwen.py: no checkpoint in {given.output} to resume from")
        allow_numpy_in_checkpoints()

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
        train_dataset=load_dataset("json", data_files=str(given.data), split="train"),
        peft_config=LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"),
        args=SFTConfig(
            output_dir=given.output,
            max_steps=given.max_steps,
            per_device_train_batch_size=settings["per_device_train_batch_size"],
            gradient_accumulation_steps=settings["gradient_accumulation_steps"],
            gradient_checkpointing=given.gradient_checkpointing,
            gradient_checkpointing_kwargs={"use_reentrant": False} if given.gradient_checkpointing else None,
            bf16=settings["bf16"],
            fp16=settings["fp16"],
            tf32=settings["tf32"],
            use_cpu=not torch.cuda.is_available(),
            learning_rate=2e-4,  # LoRA's usual; the guide names none
            logging_steps=1,
            save_steps=given.save_steps,
            report_to=[],
            **accepted(SFTConfig, dataset_text_field="text", max_seq_length=given.max_length,
                       max_length=given.max_length),
        ),
        **accepted(SFTTrainer.__init__, tokenizer=tokenizer, processing_class=tokenizer),
    )
    trainer.train(resume_from_checkpoint=checkpoint)
    trainer.save_model(given.output)
    if trainer.is_world_process_zero():
        print(f"Saved the adapter in {given.output} after step {trainer.state.global_step}")


if __name__ == "__main__":
    main()
