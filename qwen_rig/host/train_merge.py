"""The adapter of a run merged into its model, as safetensors in RUN/merged: python train_merge.py RUN ADAPTER STEP."""

import shutil
import sys
from pathlib import Path

import train_files


def main(run, adapter, step):
    import transformers
    from peft import PeftModel

    settings, made = train_files.read(run / "settings.json"), run / "merged"
    if not settings.get("use_peft", True):
        sys.exit("qwen-rig: this run trains the model itself: there is nothing to merge")
    name, trust = settings["model_name_or_path"], settings["trust_remote_code"]
    options = {"dtype" if int(transformers.__version__.split(".")[0]) >= 5 else "torch_dtype": "bfloat16"}
    model = transformers.AutoModelForCausalLM.from_pretrained(name, trust_remote_code=trust, **options)
    merged = PeftModel.from_pretrained(model, str(adapter)).merge_and_unload()
    (run / "merged.json").unlink(missing_ok=True)
    shutil.rmtree(made, ignore_errors=True)
    merged.save_pretrained(str(made))
    for path in adapter.glob("*.json"):  # the tokenizer's
        if not path.name.startswith(("adapter", "trainer")) and not (made / path.name).exists():
            shutil.copy(path, made)
    files = train_files.fetched(train_files.files(made, synced=True))
    train_files.write(run / "merged.json", {"step": int(step), "files": files})


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
