"""Runs on the host, under the env's python: does flash-attn import, and compute forward and backward as SDPA does?

Usage: flash_attn_check.py. Prints {status, version, device, cases, why} as JSON; exits 0 for pass, 1 for fail, 3 where
it could not be run (no GPU, or none with bf16). Each GPU is tried: head dimensions 64 and 128, causal and not.
"""

import argparse
import json
import sys

HEAD_DIMS, BATCH, LENGTH, HEADS = (64, 128), 2, 256, 4
# bf16 keeps 8 bits, so two right answers differ by some 1e-3 to 1e-2 of the norm; a wrong kernel by far more.
TOLERANCE = 2e-2
EXITS = {"pass": 0, "fail": 1, "not_run": 3}


def verdict(status, why=None, **more):
    return {"status": status, "why": why, **more}


def difference(have, wanted):
    return ((have.float() - wanted.float()).norm() / wanted.float().norm()).item()


def compare(torch, flash_attn_func, device, head_dim, causal):
    """Relative differences of output and of the three gradients to PyTorch's own attention in fp32."""
    torch.manual_seed(0)
    shape = (BATCH, LENGTH, HEADS, head_dim)
    q, k, v, upstream = (torch.randn(shape, device=device, dtype=torch.bfloat16) for _ in range(4))
    ours = [x.clone().requires_grad_() for x in (q, k, v)]
    out = flash_attn_func(*ours, causal=causal)
    out.backward(upstream)
    theirs = [x.float().requires_grad_() for x in (q, k, v)]
    # SDPA wants (batch, heads, length, head_dim).
    exact = torch.nn.functional.scaled_dot_product_attention(*(x.transpose(1, 2) for x in theirs), is_causal=causal)
    exact = exact.transpose(1, 2)
    exact.backward(upstream.float())
    torch.cuda.synchronize()
    pairs = [(out, exact), *((a.grad, b.grad) for a, b in zip(ours, theirs, strict=True))]
    return [difference(have, wanted) for have, wanted in pairs]


def check():
    """The verdict; never raises."""
    try:
        import torch  # before flash-attn, whose library needs torch's to be loaded

        devices = torch.cuda.device_count() if torch.cuda.is_available() else 0
        import flash_attn
        from flash_attn import flash_attn_func
    except Exception as error:  # an ABI or glibc mismatch is an ImportError, a broken torch may be anything
        return verdict("fail", f"{type(error).__name__}: {' '.join(str(error).split())[:400]}")
    version = flash_attn.__version__
    if not devices:
        return verdict("not_run", "torch sees no GPU: nothing to compute on", version=version)
    cases, worst = [], 0.0
    for i in range(devices):
        name = torch.cuda.get_device_name(i)
        if torch.cuda.get_device_capability(i)[0] < 8:
            return verdict("not_run", f"{name} has no bf16", version=version)
        for head_dim in HEAD_DIMS:
            for causal in (False, True):
                case = f"{name}, head_dim {head_dim}, {'causal' if causal else 'full'}"
                try:
                    found = compare(torch, flash_attn_func, f"cuda:{i}", head_dim, causal)
                except Exception as error:
                    return verdict("fail", f"{case}: {type(error).__name__}: {' '.join(str(error).split())[:300]}",
                                   version=version, cases=cases)
                cases.append({"case": case, "differences": [round(x, 5) for x in found]})
                worst = max(worst, *found)
                if not all(x < TOLERANCE for x in found):  # also where one is nan
                    return verdict("fail", f"{case}: differs from SDPA by {max(found):.1e}", version=version,
                                   cases=cases)
    return verdict("pass", version=version, cases=cases, worst=round(worst, 5), tolerance=TOLERANCE)


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    found = check()
    print(json.dumps(found))
    sys.exit(EXITS[found["status"]])
