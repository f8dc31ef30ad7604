"""Fine-tune a Qwen with LoRA, QLoRA or in full, by the settings that were made for this host's card.

    python train_qwen.py --model_name_or_path Qwen/Qwen3-8B --dataset_name chats.jsonl --output_dir out
    python train_qwen.py … --resume                                        on from the last checkpoint
    python train_qwen.py … --load_in_4bit --num_train_epochs 3 --lora_r 32 --report_to tensorboard
    accelerate launch --config_file accelerate.yaml train_qwen.py …        several cards
    sh launch.sh --model_name_or_path … --dataset_name …                   several hosts (rig launch)

The names are TRL's own. --dataset_name is a file (.jsonl, .json, .csv, .parquet), a folder of such, or a data set of
the hub, with `messages`, with `prompt` and `completion`, or with `text`. The strongest says: the command line; your own
settings in ~/.config/qwen-rig/training.json, which no run of qwen-rig touches; training.json beside this file.
"""

import argparse
import importlib.util
import inspect
import json
import os
import shutil
import sys
from pathlib import Path

OWN = Path(os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")) / "qwen-rig" / "training.json"
OLD = {"--model": "--model_name_or_path", "--data": "--dataset_name", "--output": "--output_dir"}  # read for a release
KINDS = {".jsonl": "json", ".json": "json", ".csv": "csv", ".parquet": "parquet"}
FLAGS = ("load_in_4bit", "gradient_checkpointing", "packing", "completion_only_loss", "use_peft", "trust_remote_code")
DEFAULTS = {  # what neither the command line nor a file says
    "model_name_or_path": None, "dataset_name": None, "dataset_config": None, "dataset_train_split": "train",
    "dataset_test_split": None, "test_split_size": 0.0, "output_dir": "qwen-lora", "max_length": 1024, "packing": False,
    "completion_only_loss": False, "load_in_4bit": False, "use_peft": True, "lora_r": 16, "lora_alpha": 32,
    "lora_dropout": 0.0, "lora_target_modules": "all-linear", "learning_rate": 2e-4, "num_train_epochs": 3.0,
    "max_steps": -1, "per_device_train_batch_size": None, "gradient_accumulation_steps": None,
    "gradient_checkpointing": False, "save_steps": 100, "logging_steps": 1, "eval_steps": 100, "seed": 42,
    "report_to": "none", "attn_implementation": None, "trust_remote_code": False}
WHOLE = ("max_length", "lora_r", "lora_alpha", "max_steps", "per_device_train_batch_size", "save_steps",
         "logging_steps", "gradient_accumulation_steps", "eval_steps", "seed")
FRACTIONS = ("lora_dropout", "learning_rate", "num_train_epochs", "test_split_size")
REPORTS = ("none", "tensorboard", "wandb")


def stop(what):
    sys.exit(f"train_qwen.py: {what}")


def note(what):
    """Say something that ends nothing: a line that begins as stop()'s does counts as why a run failed."""
    print(f"note: {what}", file=sys.stderr)


def truth(text):
    if str(text).lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")
    return str(text).lower() == "true"


def arguments(argv):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
                                     allow_abbrev=False)
    for name, default in DEFAULTS.items():
        names = list(dict.fromkeys((f"--{name}", f"--{name.replace('_', '-')}",
                                    *(old for old, new in OLD.items() if new == f"--{name}"))))
        kind = int if name in WHOLE else float if name in FRACTIONS else truth if name in FLAGS else str
        more = {"nargs": "?", "const": True} if name in FLAGS else {"choices": REPORTS} if name == "report_to" else {}
        parser.add_argument(*names, type=kind, default=None, help=f"default: {default}", **more)
    parser.add_argument("--settings", type=Path, default=Path(__file__).resolve().parent / "training.json")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint in --output_dir")
    given = parser.parse_args(argv)
    for old in (each.split("=")[0] for each in argv if each.split("=")[0] in OLD):
        note(f"{old} is now {OLD[old]}; the old name is read for this release")
    return given


def read(path):
    """The settings in a file; one line for what is none."""
    try:
        found = json.loads(path.read_text())
    except FileNotFoundError:
        stop(f"there is no file {path}")
    except (OSError, ValueError) as error:
        stop(f"{path} can't be read as JSON: {error}")
    if not isinstance(found, dict):
        stop(f"{path} must hold one JSON object, {{\"max_length\": 2048}}")
    return found


def checked(own, path):
    """The user's own settings, each of a known name and of its type."""
    for name, value in own.items():
        if name not in DEFAULTS:
            stop(f"{path}: there is no setting {name!r}; --help lists them")
        kind = bool if name in FLAGS else int if name in WHOLE else (int, float) if name in FRACTIONS else str
        if not isinstance(value, kind) or (kind is not bool and isinstance(value, bool)):
            stop(f"{path}: {name} can't be {value!r}")
    return own


def settled(given):
    """All settings: the command line over the user's own file over training.json over the defaults."""
    made = read(given.settings)
    own = checked(read(OWN), OWN) if OWN.exists() else {}
    said = {name: value for name in DEFAULTS if (value := getattr(given, name)) is not None}
    made.pop("trust_remote_code", None)  # release 0.2.0 allowed a model's own code; today it takes the user's word
    found = {**DEFAULTS, **made, **own, **said}
    for name in ("model_name_or_path", "dataset_name"):
        if not found[name]:
            stop(f"--{name} is missing")
    if said := wrong(found):
        stop(said)
    for module, wanted in (("bitsandbytes", found["load_in_4bit"]), (found["report_to"], found["report_to"] != "none")):
        if wanted and importlib.util.find_spec(module) is None:
            stop(f"this env has no {module}: run qwen-rig again, which brings it")
    return found


def wrong(found):
    """What can't be of these settings, in words; "" of those that can."""
    for name in (*WHOLE, *FRACTIONS):
        least = -1 if name == "max_steps" else 0 if name in (*FRACTIONS, "seed") else 1
        if found.get(name) is not None and not least <= found[name] < 10 ** 9:  # NaN isn't, either
            return f"--{name} can't be {found[name]}"
    for name in ("test_split_size", "lora_dropout"):
        if not 0 <= (found.get(name) or 0) < 1:
            return f"--{name} is a share below 1, not {found[name]}"
    if found.get("num_train_epochs") == 0 and (found.get("max_steps") or -1) < 1:
        return "--num_train_epochs 0 trains nothing: name a number above 0, or --max_steps"
    if found.get("report_to", "none") not in REPORTS:
        return f"report_to can't be {found['report_to']!r}: it takes {', '.join(REPORTS)}"
    half = found.get("load_in_4bit") and found.get("use_peft") is False
    return "--load_in_4bit trains an adapter only: leave --use_peft true" if half else ""


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
    if not settings["use_peft"]:
        settings["torch_dtype"] = "float32"
    if processes > 1:
        whole = settings["per_device_train_batch_size"] * settings["gradient_accumulation_steps"]
        batch = min(settings["per_device_train_batch_size"], max(1, whole // processes))
        accumulation = max(1, whole // (batch * processes))
        settings.update(per_device_train_batch_size=batch, gradient_accumulation_steps=accumulation)
        print(f"{processes} processes: effective batch {batch * accumulation * processes} (wanted {whole})")
    return settings


def accepted(function, **options):
    """Those options that a function takes: trl renames its own from release to release."""
    return {name: value for name, value in options.items() if name in inspect.signature(function).parameters}


def source(name):
    """(what load_dataset is called with, how it is told): a file, a folder, or a name of the hub."""
    path = Path(name)
    if path.is_dir():
        files = sorted(str(each) for each in path.iterdir() if each.suffix in KINDS)
        kinds = {KINDS[Path(each).suffix] for each in files}
        if len(kinds) != 1:
            held = "files of several kinds" if files else "no data"
            stop(f"the folder {name} holds {held}: it takes one of {', '.join(KINDS)}")
        return kinds.pop(), files
    if path.suffix in KINDS or path.exists() or name.count("/") != 1:
        if not path.is_file():
            stop(f"there is no file {name}")
        if path.suffix not in KINDS:
            stop(f"{name} is of no kind that is read: {', '.join(KINDS)}")
        if not path.stat().st_size:
            stop(f"{name} is empty")
        return KINDS[path.suffix], [name]
    return name, None


def loaded(settings):
    """(training data, evaluation data or None), with the columns that they are trained by."""
    from datasets import load_dataset
    name, (kind, files) = settings["dataset_name"], source(settings["dataset_name"])

    def split(which):
        try:
            return load_dataset(kind, data_files=files, split="train") if files else load_dataset(
                kind, settings["dataset_config"], split=which)
        except Exception as error:  # datasets raises of many kinds, with the cause at its end
            cause = error.__cause__ or error
            stop(f"{name} can't be read: {' '.join(str(cause).split())[:300]}")

    train, test = split(settings["dataset_train_split"]), None
    if settings["dataset_test_split"] and not files:
        test = split(settings["dataset_test_split"])
    if not len(train):
        stop(f"{name} holds no samples")
    train = columns(train, name)
    if settings["test_split_size"]:
        if len(train) < 2:
            stop(f"{name} holds one sample: nothing is left to evaluate")
        parts = train.train_test_split(settings["test_split_size"], seed=settings["seed"])
        train, test = parts["train"], parts["test"]
    return train, test if test is None or settings["test_split_size"] else columns(test, name)


def columns(data, name):
    """The data with those columns alone that it is trained by; each sample is looked at."""
    for wanted in (("messages",), ("prompt", "completion"), ("text",)):
        if all(each in data.column_names for each in wanted):
            data = data.select_columns(list(wanted))
            for number, row in enumerate(data, 1):
                if not all(row[each] and sound(each, row[each]) for each in wanted):
                    stop(f"{name}: sample {number} is wrong: {example(wanted)}")
            return data
    stop(f"{name} has the columns {', '.join(data.column_names)}: it takes messages, or prompt and completion, or text")


def sound(name, value):
    return (isinstance(value, str) and name != "messages") or (isinstance(value, list) and name != "text" and all(
        isinstance(each, dict) and isinstance(each.get("role"), str) and isinstance(each.get("content"), str)
        for each in value))


def example(wanted):
    return {"messages": '{"messages": [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}]}',
            "prompt": '{"prompt": "…", "completion": "…"}', "text": '{"text": "…"}'}[wanted[0]]


def shaped(data, settings, words, config):
    """The data as this trl takes them. Of a chat, `completion_only_loss` trains the last answer alone."""
    native = "completion_only_loss" in inspect.signature(config).parameters
    only = settings["completion_only_loss"]
    names, chat = data.column_names, words.chat_template
    talks = "messages" in names or ("prompt" in names and not isinstance(data[0]["prompt"], str))
    if talks and not chat:
        stop(f"the tokenizer of {settings['model_name_or_path']} has no chat template: take an -Instruct model, or "
             "data with text")
    if only and not native:
        stop("--completion_only_loss takes stack qwen3 or a newer one: this trl has none")
    if only and "text" in names:
        stop("--completion_only_loss takes messages, or prompt and completion: text has no answer of its own")
    if "messages" in names and only:
        return data.map(lambda row: {"prompt": row["messages"][:-1], "completion": row["messages"][-1:]},
                        remove_columns=["messages"])
    if native or "text" in names:
        return data

    def text(row):
        turns = row["messages"] if "messages" in names else row["prompt"] + row["completion"]
        return {"text": turns if isinstance(turns, str) else words.apply_chat_template(turns, tokenize=False)}

    return data.map(text, remove_columns=names)


def told_long(data, words, limit):
    """Say how many samples are cut; a look at the first thousand is enough."""
    seen = data.select(range(min(len(data), 1000)))

    def size(row):
        turns = row.get("messages") or row.get("text") or (row["prompt"] + row["completion"])
        plain = turns if isinstance(turns, str) else " ".join(turn["content"] for turn in turns)
        return len(words(plain)["input_ids"])

    cut = sum(size(row) > limit for row in seen)
    if cut:
        note(f"{cut} of {len(seen)} samples are longer than {limit} tokens and are cut: --max_length")


def allow_numpy_in_checkpoints():
    """Let torch.load (plain tensors alone since 2.6) read NumPy's array and integer type, nothing else: transformers
    before 4.50 saves the random state as it is (huggingface/transformers#34631)."""
    import numpy
    import torch

    core = getattr(numpy, "_core", None) or numpy.core
    torch.serialization.add_safe_globals(
        [core.multiarray._reconstruct, numpy.ndarray, numpy.dtype, type(numpy.dtype(numpy.uint32))])


def main(argv):
    given = arguments(argv)
    settings = settled(given)
    # Where models and data sets are kept, and where they come from: read when the libraries below are imported.
    for key, variable in (("hf_home", "HF_HOME"), ("hf_endpoint", "HF_ENDPOINT")):
        if settings.get(key):
            os.environ.setdefault(variable, settings[key])
    for variable, text in settings.get("environment", {}).items():  # what these cards need, by their certificates
        os.environ.setdefault(variable, text)
    os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
    source(settings["dataset_name"])  # told before a minute of imports
    train(given, settings)


def last_checkpoint(given, settings):
    from transformers.trainer_utils import get_last_checkpoint

    if not given.resume:
        return None
    found = get_last_checkpoint(settings["output_dir"]) if os.path.isdir(settings["output_dir"]) else None
    if found is None:
        stop(f"no checkpoint in {settings['output_dir']} to resume from")
    allow_numpy_in_checkpoints()
    return found


def the_model(settings):
    """The tokenizer and the model."""
    import torch
    import transformers
    name, trust = settings["model_name_or_path"], settings["trust_remote_code"]
    dtype = getattr(torch, settings["torch_dtype"])
    options = {"dtype" if int(transformers.__version__.split(".")[0]) >= 5 else "torch_dtype": dtype}
    if settings["load_in_4bit"]:
        options["quantization_config"] = transformers.BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype)
    try:
        words = transformers.AutoTokenizer.from_pretrained(name, trust_remote_code=trust)
        return words, transformers.AutoModelForCausalLM.from_pretrained(
            name, device_map=settings["device_map"], trust_remote_code=trust, use_cache=settings["use_cache"],
            attn_implementation=settings["attn_implementation"], **options)
    except (OSError, ValueError, KeyError) as error:
        stop(f"the model {name} can't be loaded: {' '.join(str(error).split())[:300]}")


def config(settings, evaluates):
    """TRL's arguments."""
    import torch
    from trl import SFTConfig

    same = ("output_dir", "max_steps", "num_train_epochs", "per_device_train_batch_size", "gradient_accumulation_steps",
            "gradient_checkpointing", "bf16", "fp16", "tf32", "learning_rate", "logging_steps", "save_steps", "seed",
            "packing")
    return SFTConfig(
        **{name: settings[name] for name in same}, use_cpu=not torch.cuda.is_available(),
        gradient_checkpointing_kwargs={"use_reentrant": False} if settings["gradient_checkpointing"] else None,
        report_to=[] if settings["report_to"] == "none" else [settings["report_to"]],
        per_device_eval_batch_size=settings["per_device_train_batch_size"],
        **({"eval_strategy": "steps", "eval_steps": settings["eval_steps"]} if evaluates else {}),
        **accepted(SFTConfig, dataset_text_field="text", max_seq_length=settings["max_length"],
                   max_length=settings["max_length"],
                   completion_only_loss=True if settings["completion_only_loss"] else None))


def followers():
    """The callbacks of a run that `qwen-rig train` began (train_follow.py beside this file); None elsewhere."""
    if not (run := os.environ.get("QWEN_RIG_RUN")):
        return None
    from train_follow import Follow
    return [Follow(run)]


def enough_room(settings, model):
    """Stop where a checkpoint (what is trained, and AdamW's two moments) has no room."""
    trained = sum(each.numel() for each in model.parameters() if each.requires_grad)
    place = Path(settings["output_dir"]).absolute()
    place = next(each for each in (place, *place.parents) if each.exists())
    needs, free = trained * 12, shutil.disk_usage(place).free
    if free < needs:
        stop(f"a checkpoint takes {needs >> 20} MiB, and {place} has {free >> 20} free: --output_dir on another disk")


def train(given, settings):
    import torch

    if not torch.cuda.is_available():  # Triton wants a GPU: its interpreter runs trl's loss, torch the linear layers
        os.environ.setdefault("TRITON_INTERPRET", "1")
        sys.modules.setdefault("fla", None)
    from peft import LoraConfig
    from transformers import set_seed
    from trl import SFTConfig, SFTTrainer

    settings, checkpoint = fitted(settings), last_checkpoint(given, settings)
    data, test = loaded(settings)
    set_seed(settings["seed"])
    words, model = the_model(settings)
    told_long(data, words, settings["max_length"])
    data, test = (None if each is None else shaped(each, settings, words, SFTConfig) for each in (data, test))
    targets = settings["lora_target_modules"]
    lora = LoraConfig(r=settings["lora_r"], lora_alpha=settings["lora_alpha"], lora_dropout=settings["lora_dropout"],
                      target_modules=targets.split(",") if "," in targets else targets, task_type="CAUSAL_LM")
    trainer = SFTTrainer(model=model, train_dataset=data, eval_dataset=test, callbacks=followers(),
                         peft_config=lora if settings["use_peft"] else None, args=config(settings, test is not None),
                         **accepted(SFTTrainer.__init__, tokenizer=words, processing_class=words))
    enough_room(settings, trainer.model)
    try:
        trainer.train(resume_from_checkpoint=checkpoint)
    except torch.cuda.OutOfMemoryError:
        batch, steps = settings["per_device_train_batch_size"], settings["gradient_accumulation_steps"]
        less = {"per_device_train_batch_size": max(1, batch // 2), "gradient_accumulation_steps": steps * 2,
                "gradient_checkpointing": True}
        stop(f"out of memory with batch {batch} of {settings['max_length']} tokens: put {json.dumps(less)} into {OWN}, "
             "or take a smaller --max_length; `qwen-rig fits` tells what fits")
    trainer.save_model(settings["output_dir"])
    if trainer.is_world_process_zero():
        print(f"Saved the {'adapter' if settings['use_peft'] else 'model'} in {settings['output_dir']} after step "
              f"{trainer.state.global_step}")


if __name__ == "__main__":
    main(sys.argv[1:])
