"""Runs on the host, under the env's python: prove the env, check by check, and write what was seen as JSON.

Usage: verify.py --expect JSON --record PATH --fingerprint TEXT. Prints the record too; exits 0 whatever the checks
say, 1 only where the record can't be written. Needs processes.py, tiny_qwen.py, flash_attn_check.py and gated_delta.py
beside it.

Each check is pass, fail or not_run, with what was measured, what was expected and why. What couldn't run is never a
pass. Checks that import anything heavy run in a process of their own, so that a crash or a hang costs one check.
"""

import argparse
import json
import math
import os
import re
import sys
import tempfile
import time
from pathlib import Path

import flash_attn_check
import gated_delta
import processes
import tiny_qwen
from processes import largest, result

FIRST_SECONDS = 300  # the first import of torch after an installation took 40 s on a cold, slow disk
LORA_STEPS, LENGTH = 5, 64
BF16_ERROR = 1e-2  # bf16 keeps 8 bits: rounding alone costs some 2e-3 of the norm


def judged(good, measured, expected, why=None):
    return result("pass" if good else "fail", measured, expected, None if good else why)


def public(version):
    """A version without its local part: PyTorch's own index says 2.8.0+cu128 where the registry says 2.8.0."""
    return str(version).split("+")[0]


def check_python(expect):
    have = ".".join(map(str, sys.version_info[:3]))
    return judged(have.startswith(expect["python"] + "."), have, expect["python"], "another Python runs here")


def check_packages(expect):
    from importlib.metadata import PackageNotFoundError, version

    wrong = {}
    for name, wanted in expect["packages"].items():
        try:
            have = version(name)
        except PackageNotFoundError:
            have = None
        if have is None or public(have) != public(wanted):
            wrong[name] = (have, wanted)
    told = [f"{name} {have or 'absent'}, wanted {wanted}" for name, (have, wanted) in sorted(wrong.items())]
    more = [f"and {len(told) - 8} more"] if len(told) > 8 else []
    total = len(expect["packages"])
    return judged(not wrong, f"{total - len(wrong)} of {total} as locked", f"{total} of {total}",
                  "; ".join(told[:8] + more))


def check_torch(expect):
    import torch

    wanted = expect["torch"]["release"]  # None: an index of nightly builds, whichever it has
    return judged(wanted in (None, public(torch.__version__)), torch.__version__, wanted or "any release",
                  "another torch is installed")


def check_cuda_build(expect):
    import torch

    return judged(torch.version.cuda == expect["torch"]["cuda"], torch.version.cuda, expect["torch"]["cuda"],
                  "this torch is a CPU build" if torch.version.cuda is None else "built for another CUDA")


def check_import(expect):
    exec(expect["import_gate"], {})
    return result("pass", expect["import_gate"], expect["import_gate"])


def gpus():
    """(torch, indexes of GPUs it can address); the list is empty where CUDA isn't available."""
    import torch

    return torch, list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []


def check_gpu(expect):
    torch, found = gpus()
    if found:
        return result("pass", [torch.cuda.get_device_name(i) for i in found], "a GPU that torch can use")
    why = "torch sees no GPU" if torch.version.cuda else "this torch is a CPU build"
    return result("fail" if expect["gpu"] else "not_run", [], "a GPU that torch can use", why)


def runs_on(arch, major, minor):
    """Whether code for that architecture runs there: sm_86 on 8.6 and 8.9, compute_90 (PTX) on 9.0 and all later."""
    found = re.fullmatch(r"(sm|compute)_(\d+)(\d)([af]?)", arch)
    if not found:
        return False
    built = int(found[2]), int(found[3])
    if found[4]:
        return built == (major, minor)
    return (major, minor) >= built if found[1] == "compute" else built[0] == major and built[1] <= minor


def check_gpu_arch(expect):
    torch, found = gpus()
    if not found:
        return result("not_run", None, None, "torch sees no GPU")
    archs = torch.cuda.get_arch_list()
    here = {torch.cuda.get_device_capability(i) for i in found}
    bad = [f"sm_{major}{minor}" for major, minor in sorted(here) if not any(runs_on(a, major, minor) for a in archs)]
    return judged(not bad, [f"sm_{major}{minor}" for major, minor in sorted(here)], archs,
                  f"this torch has no code for {', '.join(bad)}")


def check_kernel(expect):
    torch, found = gpus()
    if not found:
        return result("not_run", None, None, "torch sees no GPU")
    n = 1 << 20
    for i in found:
        total = (torch.arange(n, device=f"cuda:{i}") * 2 + 1).sum().item()
        if total != n * n:  # the first n odd numbers
            return result("fail", total, n * n, f"GPU {i} computes wrongly")
    return result("pass", f"{n * n} on {len(found)} GPU(s)", n * n)


def check_bf16_matmul(expect):
    torch, found = gpus()
    if not found:
        return result("not_run", None, None, "torch sees no GPU")
    if torch.cuda.get_device_capability(found[0])[0] < 8:
        return result("not_run", None, None, "bf16 needs compute capability 8.0 or more")
    torch.manual_seed(0)
    torch.backends.cuda.matmul.allow_tf32 = False
    errors = []
    for i in found:
        a, b = (torch.randn(1024, 1024, device=f"cuda:{i}", dtype=torch.bfloat16) for _ in "ab")
        exact = a.float() @ b.float()
        errors.append((((a @ b).float() - exact).norm() / exact.norm()).item())
    worst = largest(errors)
    return judged(worst < BF16_ERROR, f"relative error {worst:.1e}", f"< {BF16_ERROR:.0e}",
                  "bf16 differs too much from fp32")


def check_attention(expect):
    """The attention that training uses, forward and backward, for the head dimensions of the models that train here."""
    torch, found = gpus()
    if not found:
        return result("not_run", None, None, "torch sees no GPU")
    bf16 = torch.cuda.get_device_capability(found[0])[0] >= 8
    used, function = flash_attn_check.recorded() if bf16 else "sdpa", flash_attn_check.sdpa(torch)
    if used != "sdpa":
        _, function = flash_attn_check.function_of(used)
    head_dims = expect.get("head_dims") or list(flash_attn_check.HEAD_DIMS)
    done, why = flash_attn_check.cases(torch, function, [f"cuda:{i}" for i in found], head_dims,
                                       torch.bfloat16 if bf16 else torch.float16)
    measured = {"attention": used, "head_dims": head_dims, "worst": None if why else flash_attn_check.worst(done)}
    return judged(why is None, measured, f"differs from the formula by less than {flash_attn_check.TOLERANCE:g}", why)


def check_gated_delta(expect):
    """The rule of a hybrid's linear layers, forward and backward; a missing fast kernel is not a pass."""
    import torch

    found = gated_delta.check(torch, tuple(expect["gated_delta"]["dims"]), expect["gated_delta"]["cost"])
    measured = {key: found[key] for key in ("kernel", "worst", "ms", "torch_ms") if found.get(key) is not None}
    return result(found["status"], measured or None, "as the rule written out, by flash-linear-attention", found["why"])


def check_lora(expect):
    """Five LoRA steps of a tiny random Qwen on one text again and again: the loss must be finite and fall."""
    torch, found = gpus()
    bf16 = not found or torch.cuda.get_device_capability(0)[0] >= 8
    heads = flash_attn_check.recorded() if found and bf16 else "sdpa"
    words, family = tiny_qwen.tokenizer(), tiny_qwen.family(expect)
    net = tiny_qwen.model(torch, words, family, "tiny", torch.bfloat16 if bf16 else torch.float32, heads, LENGTH)
    with tempfile.TemporaryDirectory() as folder:
        trainer = tiny_qwen.sft(torch, folder, words, net, samples=32, length=LENGTH, options=dict(
            max_steps=LORA_STEPS, per_device_train_batch_size=4, learning_rate=1e-2, save_strategy="no", bf16=bf16,
            use_cpu=not found))
        trainer.train()
    losses = [round(float(row["loss"]), 4) for row in trainer.state.log_history if "loss" in row]
    device = str(next(net.parameters()).device)
    name = torch.cuda.get_device_name(0) if device.startswith("cuda") else "CPU"
    measured = {"device": name, "model": family, "losses": losses, "dtype": "bf16" if bf16 else "fp32",
                "attention": heads}
    good = len(losses) == LORA_STEPS and all(map(math.isfinite, losses)) and losses[-1] < losses[0]
    return judged(good, measured, f"{LORA_STEPS} finite losses, the last below the first", "the loss doesn't fall")


# name → (check, seconds, whether it is about torch). In the order in which they are told.
CHECKS = {
    "python": (check_python, 30, False),
    "packages": (check_packages, 120, False),
    "torch": (check_torch, FIRST_SECONDS, True),
    "cuda_build": (check_cuda_build, 60, True),
    "gpu": (check_gpu, 120, True),
    "gpu_arch": (check_gpu_arch, 60, True),
    "kernel": (check_kernel, 120, True),
    "bf16_matmul": (check_bf16_matmul, 120, True),
    "attention": (check_attention, 120, True),
    "gated_delta": (check_gated_delta, FIRST_SECONDS, True),
    "import": (check_import, FIRST_SECONDS, False),
    "lora": (check_lora, FIRST_SECONDS, True),
}
ALONE = ("gated_delta", "import", "lora")  # these get a fresh process: what ran before must not help or hinder them


def run_checks(names, expect):
    """name → result of all these checks; those that need it in a process of their own."""
    seconds, done = {name: CHECKS[name][1] for name in CHECKS}, {}
    seconds["gated_delta"] += (expect.get("gated_delta") or {}).get("compile_s", 0)  # Triton's, once for each kernel
    shared = [name for name in names if name not in ALONE]
    for batch in (shared, *([name] for name in names if name in ALONE)):
        # One GPU is enough for the training, and more would turn the tiny model into a DataParallel.
        one = {"CUDA_VISIBLE_DEVICES": os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]}
        done.update(processes.run(__file__, batch, expect, seconds, one if batch == ["lora"] else None))
    return done


def verify(expect, fingerprint):
    """The whole record."""
    asked = [name for name in CHECKS if name != "gated_delta" or expect.get("gated_delta")]
    names = [name for name in asked if expect["torch"] or not CHECKS[name][2]]
    done = {name: result("not_run", None, None, f"stack {expect['stack']} has no torch") for name in asked
            if name not in names}
    done.update(run_checks(names, expect))
    checks = [dict(name=name, **done[name]) for name in asked]
    states = {check["status"] for check in checks}
    overall = "fail" if "fail" in states else "partial" if "not_run" in states else "pass"
    return {"fingerprint": fingerprint, "time": int(time.time()), "stack": expect["stack"],
            "standin": expect["standin"], "overall": overall, "checks": checks}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--expect", type=json.loads, help="what qwen_rig.catalog.stack.Stack.expect() gives, as JSON")
    parser.add_argument("--record", type=Path, help="where the record goes")
    parser.add_argument("--fingerprint", default="", help="what the record is about")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        return processes.serve({name: check for name, (check, _, _) in CHECKS.items()})
    if given.expect is None or given.record is None:
        parser.error("--expect and --record are needed")
    text = json.dumps(verify(given.expect, given.fingerprint), indent=1)
    new = given.record.with_name(given.record.name + ".new")
    try:
        new.write_text(text + "\n")
        os.replace(new, given.record)
    except OSError as error:
        sys.exit(f"verify.py: {given.record} can't be written: {error.strerror}")
    print(text)


if __name__ == "__main__":
    main()
