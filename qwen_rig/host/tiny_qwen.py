"""Travels with verify.py and certify.py: a random Qwen with LoRA through TRL, made here; nothing is downloaded.

Written for trl 0.11 to 1.x and transformers 4.46 to 5.x, which name the same things differently.
"""

import inspect
import os
import sys

TEXT = "the quick brown fox jumps over the lazy dog "
# The smallest is for CPUs and quick checks; the other has the shape of Qwen2.5-0.5B (24 layers of 896), and its
# vocabulary too where memory is what counts: the logits are most of what a batch takes.
VOCABULARY = 151_936  # vocab_size in the config.json of every Qwen2.5 and Qwen3 in qwen_rig/data/models.yml
SIZES = {
    "tiny": {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2, "num_attention_heads": 4,
             "num_key_value_heads": 2},
    "half-billion": {"hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24, "num_attention_heads": 14,
                     "num_key_value_heads": 2},
}


def accepted(function, **options):
    """Those options that a function takes: trl renames its own from release to release."""
    known = inspect.signature(function).parameters
    return {name: value for name, value in options.items() if name in known}


def tokenizer():
    """A byte-pair tokenizer trained here on three lines."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE(unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(vocab_size=384, special_tokens=["<unk>", "<pad>", "<eos>"], show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    made.train_from_iterator([TEXT.strip()] * 3, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=made, unk_token="<unk>", pad_token="<pad>", eos_token="<eos>")


def family(expect):
    """The family that the stack says it is for: Qwen3, else Qwen2, whose attention and MLP differ by biases and norms.

    (head_dim is 64 here as in the small Qwen2's; Qwen3's config has it as a key of its own: 128.)
    """
    return expect.get("model") or "Qwen2"


def hybrid(family, layers):
    """What a config of Qwen3.5's takes beside the sizes: every fourth layer has full attention, the last one always."""
    if not family.startswith("Qwen3_5"):
        return {}
    kinds = ["full_attention" if n % 4 == 3 or n == layers - 1 else "linear_attention" for n in range(layers)]
    return {"layer_types": kinds, "linear_num_key_heads": 4, "linear_num_value_heads": 8}


def no_triton(torch):
    """Without a GPU, let transformers not find flash-linear-attention, whose kernels are Triton's, which wants one; and
    let Triton's interpreter run those of trl's loss (1.15)."""
    if not torch.cuda.is_available():
        os.environ.setdefault("TRITON_INTERPRET", "1")
        sys.modules.setdefault("fla", None)


def model(torch, words, family, size, dtype, attention, length, vocabulary=None):
    """A random model of that family, the same each time; its weights are of that dtype (a torch dtype).

    `vocabulary`: how many words it knows; None: those of the tokenizer.
    """
    no_triton(torch)
    import transformers

    text = "TextConfig" if family.startswith("Qwen3_5") else "Config"  # Qwen3_5Config is that of the one that sees
    config_class, model_class = (getattr(transformers, family + kind) for kind in (text, "ForCausalLM"))
    config = config_class(vocab_size=vocabulary or len(words), max_position_embeddings=max(length, 64), use_cache=False,
                          pad_token_id=words.pad_token_id, eos_token_id=words.eos_token_id,
                          attn_implementation=attention, **SIZES[size],
                          **hybrid(family, SIZES[size]["num_hidden_layers"]))
    torch.manual_seed(0)
    usual = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        return model_class(config)
    finally:
        torch.set_default_dtype(usual)


def lora():
    """The adapter that the project's train_qwen.py trains."""
    from peft import LoraConfig

    return LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")


def sft(torch, folder, words, net, samples, length, options, callbacks=()):
    """A TRL trainer for that model on the one text again and again; `options` are TrainingArguments' own."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    data = Dataset.from_dict({"text": [TEXT * (length // 8 + 1)] * samples})  # more than `length` tokens, cut there
    arguments = SFTConfig(output_dir=folder, report_to=[], disable_tqdm=True, seed=0, logging_steps=1, **options,
                          **accepted(SFTConfig, dataset_text_field="text", max_seq_length=length, max_length=length))
    return SFTTrainer(model=net, args=arguments, train_dataset=data, peft_config=lora(), callbacks=list(callbacks),
                      **accepted(SFTTrainer.__init__, tokenizer=words, processing_class=words))
