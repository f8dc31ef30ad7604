"""Travels with certify.py: real LoRA steps by the guide's settings, through TRL; save, resume, and the largest batch.

On a host without a GPU the same runs in small on the CPU: it shows the libraries at work, and proves nothing of a card.
"""

import gc
import math
import tempfile
import time
from pathlib import Path

import tiny_qwen
from processes import NotRun, largest, one_line, result

LEARNING_RATE = {"tiny": 2e-3, "half-billion": 5e-4}  # a random model learns one text by it in 20 steps, no more meant


def place(expect):
    """(torch, whether on a GPU, settings, model size, tokens a sample): in small where there is no GPU."""
    import torch

    settings = dict(expect["training"])
    if torch.cuda.is_available():
        if torch.cuda.get_device_capability(0)[0] < 8:
            settings.update(bf16=False, tf32=False, fp16=True, attn_implementation="sdpa")
        return torch, True, settings, expect["size"], expect["length"]
    settings.update(bf16=True, tf32=None, fp16=False, attn_implementation="sdpa", per_device_train_batch_size=2,
                    gradient_accumulation_steps=1)
    return torch, False, settings, "tiny", 64


def weights(torch, settings):
    """fp16 trains on float32 weights (the scaler wants them); bf16 on bf16."""
    return torch.bfloat16 if settings["bf16"] else torch.float32


def peek(torch, net, seen):
    """A callback's body: what the running training really uses, measured, not read off a setting."""
    hooks = []

    def hook(module, inputs, output):
        seen["activations"] = str(output.dtype).removeprefix("torch.")
        for each in hooks:
            each.remove()

    linear = next(m for name, m in net.named_modules() if name.endswith("q_proj"))
    hooks.append(linear.register_forward_hook(hook))
    if torch.cuda.is_available():
        a, b = (torch.randn(512, 512, device="cuda") for _ in range(2))
        exact = a.double() @ b.double()
        # float32 keeps 24 bits and errs by some 1e-7 of the norm, tf32 keeps 11 and errs by some 1e-4.
        with torch.autocast("cuda", enabled=False):
            seen["fp32_error"] = ((a @ b).double() - exact).norm().item() / exact.norm().item()


def trainer(torch, on_gpu, settings, size, length, folder, expect, steps, seen):
    """A TRL trainer as the guide sets it, with a clock and a look at what is in use."""
    from transformers import TrainerCallback

    class Clock(TrainerCallback):
        def on_step_begin(self, args, state, control, **more):
            if state.global_step == 2:
                peek(torch, more["model"], seen)

        def on_step_end(self, args, state, control, **more):
            if on_gpu:
                torch.cuda.synchronize()
            seen.setdefault("ends", []).append(time.monotonic())

    words = tiny_qwen.tokenizer()
    net = tiny_qwen.model(torch, words, tiny_qwen.family(expect), size, weights(torch, settings),
                          settings["attn_implementation"], length)
    if on_gpu:
        net = net.to("cuda")
    options = {"max_steps": steps, "learning_rate": LEARNING_RATE[size], "lr_scheduler_type": "constant",
               "per_device_train_batch_size": settings["per_device_train_batch_size"],
               "gradient_accumulation_steps": settings["gradient_accumulation_steps"],
               "bf16": settings["bf16"], "fp16": settings["fp16"], "save_strategy": "steps", "save_steps": steps // 2,
               "use_cpu": not on_gpu, "gradient_checkpointing": False}
    if settings.get("tf32") is not None and on_gpu:
        options["tf32"] = settings["tf32"]
    samples = settings["per_device_train_batch_size"] * settings["gradient_accumulation_steps"] * steps
    made = tiny_qwen.sft(torch, folder, words, net, min(samples, 512), length, options, [Clock()])
    return made, sum(p.numel() for p in net.parameters())


def losses(made):
    return [[row["step"], float(row["loss"])] for row in made.state.log_history if "loss" in row]


def training(expect):
    """The steps; then, from the checkpoint in their middle, the second half again in a new trainer."""
    torch, on_gpu, settings, size, length = place(expect)
    steps, seen = expect["steps"], {}
    with tempfile.TemporaryDirectory() as folder:
        if on_gpu:
            torch.cuda.reset_peak_memory_stats()
        made, parameters = trainer(torch, on_gpu, settings, size, length, folder, expect, steps, seen)
        made.train()
        peak = torch.cuda.max_memory_allocated() >> 20 if on_gpu else None
        curve = losses(made)
        batch = settings["per_device_train_batch_size"] * settings["gradient_accumulation_steps"]
        ends = seen.get("ends", [])[3:]  # the first steps compile and warm up
        speed = (len(ends) - 1) * batch * length / (ends[-1] - ends[0]) if len(ends) > 1 else None
        data = {"device": torch.cuda.get_device_name(0) if on_gpu else "CPU", "family": tiny_qwen.family(expect),
                "parameters": parameters, "steps": steps, "tokens_a_sample": length, "losses": curve,
                "tokens_per_second": speed, "peak_mib": peak, "finite": all(math.isfinite(x) for _, x in curve),
                "settings": settings, "activations": seen.get("activations"), "fp32_error": seen.get("fp32_error"),
                "save": saved(torch, folder, steps, made)}
        del made
        gc.collect()  # a trainer refers to itself: without this the next one finds the card half full
        if on_gpu:
            torch.cuda.empty_cache()
        data["resume"] = resumed(torch, on_gpu, settings, size, length, folder, expect, steps, curve)
    return result("measured", data=data)


def saved(torch, folder, steps, made):
    """Whether the adapter on disk is bit by bit the one in memory (at the last step, which is saved too)."""
    from safetensors.torch import load_file

    files = sorted(Path(folder).glob(f"checkpoint-{steps}/adapter_model.safetensors"))
    if not files:
        return {"status": "fail", "why": f"no adapter in checkpoint-{steps}"}
    disk = load_file(str(files[0]))
    live = {name: p.detach().cpu() for name, p in made.model.named_parameters() if "lora_" in name}
    same = sum(1 for name, tensor in live.items()
               if any(torch.equal(tensor.to(other.dtype), other) for other in
                      [disk.get(name.replace(".default.", ".").replace(".default", "")), disk.get(name)]
                      if other is not None and other.shape == tensor.shape))
    if same != len(live) or not live:
        return {"status": "fail", "why": f"{same} of {len(live)} tensors on disk are those in memory"}
    return {"status": "measured", "tensors": same}


def resumed(torch, on_gpu, settings, size, length, folder, expect, steps, curve):
    """How far the losses of a resumed run are from the uninterrupted one's, in parts of the very first loss (the later
    ones are near nothing); or why it could not resume."""
    try:
        seen = {}
        made, _ = trainer(torch, on_gpu, settings, size, length, folder, expect, steps, seen)
        made.train(resume_from_checkpoint=f"{folder}/checkpoint-{steps // 2}")
    except Exception as error:
        return {"status": "fail", "why": f"{type(error).__name__}: {one_line(error, 240)}"}
    again = [[step, loss] for step, loss in losses(made) if step > steps // 2]
    first = dict(map(tuple, curve))
    apart = [abs(loss - first[step]) / curve[0][1] for step, loss in again if step in first]
    if len(apart) < steps - steps // 2:
        return {"status": "fail", "why": f"{len(apart)} of {steps - steps // 2} steps were run after resuming"}
    return {"status": "measured", "worst": largest(apart), "losses": again}


def fits(torch, net, optimizer, kind, batch, length, tried):
    """Whether one step of a batch goes through. Into `tried`: the batch, the most MiB that it took, and that."""
    torch.cuda.reset_peak_memory_stats()
    try:
        tokens = torch.randint(3, tiny_qwen.VOCABULARY, (batch, length), device="cuda")
        with torch.autocast("cuda", dtype=kind):
            loss = net(input_ids=tokens, labels=tokens).loss
        loss.backward()
        optimizer.step()
        torch.cuda.synchronize()
        good = True
    except torch.cuda.OutOfMemoryError:
        good = False
    loss = tokens = None
    optimizer.zero_grad(set_to_none=True)
    tried.append([batch, torch.cuda.max_memory_allocated() >> 20, good])
    torch.cuda.empty_cache()
    return good


def most_that(fits, seconds=40):
    """The largest number that fits, to an eighth, and the smallest that doesn't (None: none was met), by trying."""
    most, limit, began = 0, None, time.monotonic()
    while most < 1024 and time.monotonic() - began < seconds:
        nxt = (most + limit) // 2 if limit else max(1, 2 * most)
        if limit and nxt - most < max(1, most // 8):
            break
        if fits(nxt):
            most = nxt
        else:
            limit = nxt
    return most, limit


def largest_batch(expect):
    """The most samples that go through forward, backward and an optimizer step at once, by trying, with as many words
    as a real Qwen has."""
    torch, on_gpu, settings, size, length = place(expect)
    if not on_gpu:
        raise NotRun("no GPU")
    if expect.get("in_use") and not expect["allow_busy_gpu"]:
        raise NotRun("others use this GPU: filling its memory could end their work")
    from peft import get_peft_model

    words = tiny_qwen.tokenizer()
    net = tiny_qwen.model(torch, words, tiny_qwen.family(expect), size, weights(torch, settings),
                          settings["attn_implementation"], length, tiny_qwen.VOCABULARY)
    net = get_peft_model(net.to("cuda"), tiny_qwen.lora())
    net.train()
    optimizer = torch.optim.AdamW([p for p in net.parameters() if p.requires_grad])
    kind = torch.bfloat16 if settings["bf16"] else torch.float16
    tried = []
    most, limit = most_that(lambda batch: fits(torch, net, optimizer, kind, batch, length, tried))
    return result("measured", data={"batch": most, "next_fails": limit, "tokens_a_sample": length, "tried": tried,
                                    "settings_batch": settings["per_device_train_batch_size"]})
