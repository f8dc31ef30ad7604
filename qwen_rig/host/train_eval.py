"""A run's adapter beside its model: the loss on the eval split, and both models' answers to a few prompts.

    python train_eval.py RUN ADAPTER SPEC      SPEC: JSON with step, prompts, tokens, samples

The result goes to RUN/eval.json. With no prompts given, those of the first samples of the eval split are asked.
"""

import json
import sys
from contextlib import nullcontext
from pathlib import Path

import train_files
import train_qwen

LETTERS = 4000  # of one answer


def asked(data, count):
    """The prompts of the first samples: a chat's turns before its last, a prompt, a text's first words."""
    found = []
    for row in list(data)[:count]:
        if "messages" in row:
            turns = row["messages"][:-1] if len(row["messages"]) > 1 else row["messages"]
            found.append(turns)
        else:
            found.append(row.get("prompt") or " ".join(str(row["text"]).split()[:12]))
    return found


def answer(model, words, prompt, tokens):
    """What the model says to it, without chance."""
    import torch

    if words.chat_template:
        turns = prompt if isinstance(prompt, list) else [{"role": "user", "content": prompt}]
        prompt = words.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    given = words(prompt, return_tensors="pt").to(model.device)
    taken = {name: given[name] for name in ("input_ids", "attention_mask") if name in given}
    with torch.no_grad():
        made = model.generate(**taken, max_new_tokens=tokens, do_sample=False, pad_token_id=words.pad_token_id)
    return words.decode(made[0][given["input_ids"].shape[1]:], skip_special_tokens=True)[:LETTERS]


def losses(model, words, settings, data, base):
    """(the adapter's, the model's) loss on the eval split, by TRL's own evaluation."""
    from trl import SFTConfig, SFTTrainer

    shaped = train_qwen.shaped(data, settings, words, SFTConfig)
    trainer = SFTTrainer(model=model, train_dataset=shaped, eval_dataset=shaped,
                         args=train_qwen.config(settings, False),
                         **train_qwen.accepted(SFTTrainer.__init__, tokenizer=words, processing_class=words))
    own = trainer.evaluate()["eval_loss"]
    with base():
        return own, trainer.evaluate()["eval_loss"]


def main(run, adapter, spec):
    found = train_files.read(run / "settings.json")
    settings = train_qwen.fitted({**train_qwen.read(Path(spec["training"])), **found,
                                  "output_dir": str(run / "eval"), "report_to": "none"})
    train, test = train_qwen.loaded(settings)
    data = test if test is not None else train
    from peft import PeftModel

    tuned = bool(settings["use_peft"])
    if not tuned:
        settings["model_name_or_path"] = str(adapter)
    words, model = train_qwen.the_model(settings)
    if tuned:
        model = PeftModel.from_pretrained(model, str(adapter))
    base = model.disable_adapter if tuned else nullcontext
    few = data.select(range(min(len(data), spec["samples"])))
    loss, loss_base = losses(model, words, settings, few, base)
    rows = []
    for prompt in spec["prompts"] or asked(few, 3):
        own = answer(model, words, prompt, spec["tokens"])
        with base():
            before = answer(model, words, prompt, spec["tokens"]) if tuned else None
        said = prompt if isinstance(prompt, str) else prompt[-1]["content"]
        rows.append({"prompt": said[:LETTERS], "adapter": own, "base": before})
    train_files.write(run / "eval.json", {
        "step": spec["step"], "loss": loss, "loss_base": loss_base if tuned else None, "samples": len(few),
        "split": "eval" if test is not None else "train", "answers": rows})
    print(f"evaluated {len(few)} samples and {len(rows)} prompts at step {spec['step']}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3]))
