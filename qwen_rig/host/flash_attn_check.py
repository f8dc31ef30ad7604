"""Runs on the host, under the env's python: does flash-attn import, compute forward and backward as attention's formula
does in float32, and how fast is it beside SDPA on this card?

Usage: flash_attn_check.py [--attention NAME] [--head-dims N …]. NAME is transformers' own (attn_implementation):
flash_attention_2, flash_attention_4 or a kernel of the Hub that attention.py has laid beside this file. Prints {status,
version, cases, worst, speed, why} as JSON; exits 0 for pass, 1 for fail, 3 where it could not be run (no GPU, or none
with bf16). Each GPU is tried with each head dimension, causal and not. `speed` judges nothing: attention.py does.
verify.py and certify_attention.py prove SDPA by this code.
"""

import argparse
import importlib.metadata
import json
import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
FLASH_2, FLASH_4 = "flash_attention_2", "flash_attention_4"
HEAD_DIMS, BATCH, LENGTH, HEADS = (64, 128), 2, 256, 4
# bf16 keeps 8 bits, so two right answers differ by some 1e-3 to 1e-2 of the norm; a wrong kernel by far more.
TOLERANCE = 2e-2
TIMED = (4, 4096, 16)  # batch, length, heads of what is timed: enough that an H200 is not waiting for Python
WARM, ROUNDS = 3, 15
EXITS = {"pass": 0, "fail": 1, "not_run": 3}


def verdict(status, why=None, **more):
    return {"status": status, "why": why, **more}


def recorded(default="sdpa"):
    """What the attempt at flash-attn decided, as its record beside this file says; a kernel can be loaded then."""
    try:
        return ready(json.loads((HERE / "flash_attn.json").read_text())["attention"])
    except (OSError, ValueError, KeyError, TypeError):
        return default


def ready(attention):
    """That attention, once transformers and this program find a kernel of the Hub in its folder, not on the Hub, and
    what flash-attn 4 has compiled before."""
    if "/" in attention:
        os.environ["LOCAL_KERNELS"] = f"{attention}={HERE / 'kernels' / attention}"
    if attention == FLASH_4:
        os.environ["FLASH_ATTENTION_CUTE_DSL_CACHE_ENABLED"] = "1"
        os.environ["FLASH_ATTENTION_CUTE_DSL_CACHE_DIR"] = str(HERE / "kernels" / "flash-attn-4")
    return attention


def function_of(attention):
    """(version, the function that transformers calls for that attn_implementation)."""
    if "/" in attention:
        from kernels import get_kernel

        return "", first_of(get_kernel(ready(attention)).flash_attn_func)
    if attention == FLASH_4:
        ready(attention)  # read when it is imported
        from flash_attn.cute import flash_attn_func

        return importlib.metadata.version("flash-attn-4"), first_of(flash_attn_func)
    import flash_attn

    return flash_attn.__version__, flash_attn.flash_attn_func


def first_of(function):
    """That function where it gives more than the output: the log-sum-exp, which nobody here wants."""
    def run(*inputs, **more):
        out = function(*inputs, **more)
        return out[0] if isinstance(out, tuple) else out
    return run


def sdpa(torch):
    """PyTorch's own attention, called as flash-attn's function is: (batch, length, heads, head_dim)."""

    def run(q, k, v, causal=False):
        out = torch.nn.functional.scaled_dot_product_attention(*(x.transpose(1, 2) for x in (q, k, v)),
                                                               is_causal=causal)
        return out.transpose(1, 2).contiguous()

    return run


def formula(torch, q, k, v, causal):
    """Attention written out, so that no kernel of the same library stands on both sides."""
    weights = torch.einsum("blhd,bmhd->bhlm", q, k) / q.shape[-1] ** 0.5
    if causal:
        hidden = torch.ones(q.shape[1], k.shape[1], dtype=torch.bool, device=q.device).triu(1)
        weights = weights.masked_fill(hidden, float("-inf"))
    return torch.einsum("bhlm,bmhd->blhd", weights.softmax(-1), v)


def compare(torch, function, device, head_dim, causal, dtype):
    """Relative differences of output and of the three gradients to the formula in float32."""
    torch.manual_seed(head_dim + causal)
    torch.backends.cuda.matmul.allow_tf32 = False
    shape = (BATCH, LENGTH, HEADS, head_dim)
    q, k, v, upstream = (torch.randn(shape, device=device, dtype=dtype) for _ in range(4))
    ours = [x.clone().requires_grad_() for x in (q, k, v)]
    out = function(*ours, causal=causal)
    out.backward(upstream)
    theirs = [x.float().requires_grad_() for x in (q, k, v)]
    exact = formula(torch, *theirs, causal)
    exact.backward(upstream.float())
    pairs = [(out, exact), *((a.grad, b.grad) for a, b in zip(ours, theirs))]  # noqa: B905  Python 3.9
    return [((have.float() - wanted).norm() / wanted.norm()).item() for have, wanted in pairs]


def cases(torch, function, devices, head_dims, dtype):
    """(cases that were right, why the first one isn't; None where all are)."""
    done = []
    for device in devices:
        for head_dim in head_dims:
            for causal in (False, True):
                case = f"{name_of(torch, device)}, head_dim {head_dim}, {'causal' if causal else 'full'}"
                try:
                    found = compare(torch, function, device, head_dim, causal, dtype)
                except Exception as error:
                    return done, f"{case}: {type(error).__name__}: {' '.join(str(error).split())[:300]}"
                done.append({"case": case, "head_dim": head_dim, "differences": [round(x, 5) for x in found]})
                if not all(x < TOLERANCE for x in found):  # also where one is nan
                    worst = next((x for x in found if x != x), max(found))
                    return done, f"{case}: output or a gradient differs from the formula by {worst:.1e}"
    return done, None


def worst(done):
    return max(x for case in done for x in case["differences"])


def name_of(torch, device):
    return torch.cuda.get_device_name(device) if str(device).startswith("cuda") else "CPU"


def milliseconds(torch, functions, device, head_dim, dtype):
    """The least time of one forward and backward, causal, of each function: in turns, so that what slows the card down
    slows all of them."""
    batch, length, heads = TIMED
    torch.manual_seed(0)
    q, k, v, upstream = (torch.randn(batch, length, heads, head_dim, device=device, dtype=dtype) for _ in range(4))
    inputs, least = [x.requires_grad_() for x in (q, k, v)], [float("inf")] * len(functions)
    for turn in range(WARM + ROUNDS):
        for which, function in enumerate(functions):
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            function(*inputs, causal=True).backward(upstream)
            end.record()
            torch.cuda.synchronize(device)
            if turn >= WARM:
                least[which] = min(least[which], begin.elapsed_time(end))
            for x in inputs:
                x.grad = None
    return least


def speed(torch, function, devices, head_dims, dtype):
    """What each head dimension takes, and what it takes by SDPA: the slowest card of several."""
    rows = []
    for head_dim in head_dims:
        for device in devices:
            with torch.cuda.device(device):
                mine, by_sdpa = milliseconds(torch, (function, sdpa(torch)), device, head_dim, dtype)
            rows.append({"head_dim": head_dim, "ms": round(mine, 3), "sdpa_ms": round(by_sdpa, 3)})
    return [max((row for row in rows if row["head_dim"] == head_dim), key=lambda row: row["ms"] / row["sdpa_ms"])
            for head_dim in head_dims]


def check(head_dims, attention=FLASH_2):
    """The verdict; never raises."""
    try:
        import torch  # before flash-attn, whose library needs torch's to be loaded

        devices = [f"cuda:{i}" for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
        version, function = function_of(attention)
    except Exception as error:  # an ABI or glibc mismatch is an ImportError, a broken torch may be anything
        return verdict("fail", f"{type(error).__name__}: {' '.join(str(error).split())[:400]}")
    if not devices:
        return verdict("not_run", "torch sees no GPU: nothing to compute on", version=version)
    old = [name_of(torch, device) for device in devices if torch.cuda.get_device_capability(device)[0] < 8]
    if old:
        return verdict("not_run", f"{old[0]} has no bf16", version=version)
    done, why = cases(torch, function, devices, head_dims, torch.bfloat16)
    if why:
        return verdict("fail", why, version=version, cases=done)
    try:
        timed = speed(torch, function, devices, head_dims, torch.bfloat16)
    except Exception as error:
        return verdict("fail", f"right, but could not be timed: {type(error).__name__}: "
                               f"{' '.join(str(error).split())[:300]}", version=version, cases=done)
    return verdict("pass", version=version, cases=done, worst=worst(done), tolerance=TOLERANCE, speed=timed)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--head-dims", type=int, nargs="+", default=list(HEAD_DIMS), metavar="N",
                        help=f"of the models that train here (default: {' '.join(map(str, HEAD_DIMS))})")
    parser.add_argument("--attention", default=FLASH_2, metavar="NAME", help="as transformers names it")
    given = parser.parse_args()
    found = check(given.head_dims, given.attention)
    print(json.dumps(found))
    sys.exit(EXITS[found["status"]])


if __name__ == "__main__":
    main()
