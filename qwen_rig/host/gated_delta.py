"""Travels with verify.py and certify.py, and runs alone: is the gated-delta rule of Qwen3.5's linear layers right here,
forward and backward, and what does a missing fast kernel cost?

Usage: gated_delta.py [--dims KEY VALUE]. Prints {status, kernel, worst, …, why} as JSON; exits 0 for pass, 1 for fail,
3 where flash-linear-attention's kernels could not be run. It needs torch alone. flash-linear-attention's kernels
(Triton's, on a GPU) and transformers' torch code are proven where they are there, against the rule written out token by
token in float64.
"""

import argparse
import inspect
import json
import math
import sys
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version

DIMS = (128, 128)  # of a head's keys and values, in every Qwen3.5 to 3.8
BATCH, HEADS = 1, 2
BLOCK = 64  # tokens of one head that are compared at a time: an error in one place isn't lost in the whole
# tokens, how fast the state decays, the largest part of it that a token overwrites
CASES = {"whole blocks": (192, 0.3, 1.0), "the last block not full": (136, 0.3, 1.0),
         "strong decay": (128, 8.0, 1.0), "hardly any decay": (128, 0.002, 0.5)}
NAMES = ("the output", "the gradient of q", "the gradient of k", "the gradient of v", "the gradient of the decay",
         "the gradient of beta")
# What transformers 5.17's torch code (float32 within) errs by, of a block's own size: the worst of CASES and three
# seeds, measured on a CPU with torch 2.14.1, 2026-11-29. bf16 at its ends costs 1.7e-3 to 2.4e-3.
FLOAT32 = (1.0e-6, 1.3e-6, 1.5e-6, 1.0e-6, 4.8e-5, 1.2e-6)
MARGIN = 20  # another processor sums in another order
# A kernel multiplies in bf16, too, which keeps 8 bits: each of its many roundings costs up to 4e-3. What
# flash-linear-attention 0.6.0 (Triton 3.7.1) erred by on an H200: the worst of CASES and six seeds, 2026-11-29.
KERNEL = (4.9e-3, 5.0e-3, 5.8e-3, 4.7e-3, 1.3e-2, 7.5e-3)
ROOM = 6  # another card's kernels cut and sum elsewhere; a wrong one errs by far more
TOLERANCE = {"bfloat16": tuple(ROOM * error for error in KERNEL),
             "float32": tuple(MARGIN * error for error in FLOAT32)}
TIMED = (16, 2048)  # batch, tokens: 32 heads of 2048 tokens, as a layer of Qwen3.5-9B has
WARM, ROUNDS = 2, 5
MODELLING = ("transformers.models.qwen3_5.modeling_qwen3_5", "transformers.models.qwen3_next.modeling_qwen3_next")
EXITS = {"pass": 0, "fail": 1, "not_run": 3}


def verdict(status, why=None, **more):
    return {"status": status, "why": why, **more}


def one_line(error):
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def reference(torch, q, k, v, decay, beta):
    """The rule as it is written: the state fades, forgets what it holds under this key, and takes the value in."""
    q, k = (x * torch.rsqrt((x * x).sum(-1, keepdim=True) + 1e-6) for x in (q, k))
    state = torch.zeros(*q.shape[::2], k.shape[-1], v.shape[-1], dtype=q.dtype, device=q.device)
    out = []
    for q_t, k_t, v_t, fade, part in zip(*(x.unbind(1) for x in (q, k, v, decay.exp(), beta))):  # noqa: B905  Python 3.9
        state = state * fade[..., None, None]
        held = (k_t.unsqueeze(-2) @ state).squeeze(-2)
        state = state + k_t.unsqueeze(-1) * (part.unsqueeze(-1) * (v_t - held)).unsqueeze(-2)
        out.append((q_t.unsqueeze(-2) @ state).squeeze(-2) * q.shape[-1] ** -0.5)
    return torch.stack(out, 1)


def inputs(torch, device, dtype, dims, batch, tokens, decay, most):
    """q, k, v, the decay (float32, as the model has it) and beta; and the gradient that comes from above."""
    key, value = dims
    q, k, v, above = (torch.randn(batch, tokens, HEADS, dim, device=device, dtype=dtype)
                      for dim in (key, key, value, value))
    fade, beta = (torch.randn(batch, tokens, HEADS, device=device) for _ in range(2))
    return [q, k, v, -decay * torch.nn.functional.softplus(fade), (most * beta.sigmoid()).to(dtype)], above


def differences(have, wanted):
    """The worst block's error, as a part of that block's size (of a tenth of the whole's where the block is less); nan
    and infinity come through."""
    have, wanted = have.detach().double(), wanted.detach()
    floor, errors = 0.1 * wanted.square().mean().sqrt(), []
    for begin in range(0, wanted.shape[1], BLOCK):
        mine, exact = (x[:, begin:begin + BLOCK].transpose(1, 2).flatten(2) for x in (have, wanted))
        size = exact.square().mean(-1).sqrt().clamp(min=floor)
        errors += ((mine - exact).square().mean(-1).sqrt() / size).flatten().tolist()
    return max(errors, key=lambda error: (not math.isfinite(error), error))


def compare(torch, rule, device, dtype, dims, case):
    """What output and gradients differ by from the reference, as NAMES has them."""
    torch.manual_seed(len(case))
    given, above = inputs(torch, device, dtype, dims, BATCH, *CASES[case])
    ours = [x.clone().requires_grad_() for x in given]
    q, k, v, decay, beta = ours
    out = rule(q, k, v, g=decay, beta=beta, use_qk_l2norm_in_kernel=True)[0]
    out.backward(above)
    theirs = [x.double().requires_grad_() for x in given]
    exact = reference(torch, *theirs)
    exact.backward(above.double())
    lost = [name for name, x in zip(NAMES[1:], ours) if x.grad is None]  # noqa: B905  Python 3.9
    if lost:
        raise RuntimeError(f"{lost[0]} doesn't arrive")
    pairs = [(out, exact), *((a.grad, b.grad) for a, b in zip(ours, theirs))]  # noqa: B905
    return [differences(*pair) for pair in pairs]


def prove(torch, rule, devices, dtype, dims):
    """(the largest difference, why it is wrong; None where it is right)."""
    largest = 0.0
    for device in devices:
        for case in CASES:
            try:
                found = compare(torch, rule, device, dtype, dims, case)
            except Exception as error:
                return None, f"{case}: {one_line(error)}"
            limits = TOLERANCE[str(dtype).removeprefix("torch.")]
            for name, error, most in zip(NAMES, found, limits):  # noqa: B905
                if not math.isfinite(error):
                    return None, f"{case}: {name} is NaN or infinite"
                if not error < most:
                    return None, f"{case}: {name} is wrong by {error:.1e} of its size (at most {most:.0e})"
            largest = max(largest, *found)
    return round(largest, 6), None


def milliseconds(torch, rule, device, dims):
    """The least time of one forward and backward of 2048 tokens × 32 heads; None where it can't be measured."""
    given, above = inputs(torch, device, torch.bfloat16, dims, TIMED[0], TIMED[1], 0.3, 1.0)
    q, k, v, decay, beta = (x.requires_grad_() for x in given)
    times = []
    try:
        for _ in range(WARM + ROUNDS):
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            rule(q, k, v, g=decay, beta=beta, use_qk_l2norm_in_kernel=True)[0].backward(above)
            end.record()
            torch.cuda.synchronize(device)
            times.append(begin.elapsed_time(end))
    except Exception:  # too little memory left, mostly
        return None
    return round(min(times[WARM:]), 2)


def fast():
    """(flash-linear-attention's rule, its name), or (None, why it isn't there)."""
    try:
        from fla.ops.gated_delta_rule import chunk_gated_delta_rule
    except ModuleNotFoundError as error:
        return None, "isn't installed" if (error.name or "fla").split(".")[0] == "fla" else one_line(error)
    except Exception as error:  # what transformers, too, takes for absent
        return None, f"can't be imported ({one_line(error)})"
    try:
        said = version("flash-linear-attention")
    except PackageNotFoundError:
        said = getattr(import_module("fla"), "__version__", "")
    return chunk_gated_delta_rule, f"flash-linear-attention {said}".strip()


def slow():
    """(transformers' own torch code for it, its name), or (None, why it isn't there)."""
    why = ""
    for name in MODELLING:
        try:
            rule = inspect.unwrap(import_module(name).torch_chunk_gated_delta_rule)
            return rule, f"the torch code of transformers {version('transformers')}"
        except Exception as error:
            why = why or one_line(error)
    return None, why


def check(torch, dims=DIMS, cost=""):
    """The verdict. `cost`: what a missing fast kernel costs, in words, as others measured."""
    devices = [f"cuda:{i}" for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    if not devices:
        sys.modules.setdefault("fla", None)  # its kernels are Triton's: only the import takes long
        return on_cpu(torch, dims)
    old = [torch.cuda.get_device_name(d) for d in devices if torch.cuda.get_device_capability(d)[0] < 8]
    if old:
        return verdict("not_run", f"{old[0]} has no bf16, without which Qwen3.5 gives NaN")
    return on_gpu(torch, devices, dims, cost)


def on_gpu(torch, devices, dims, cost):
    """flash-linear-attention's kernels on each card; their time, and that of transformers' torch code."""
    kernel, name = fast()
    plain, plain_name = slow()
    if kernel is None:
        return without(torch, devices, dims, name, plain, plain_name, cost)
    worst, why = prove(torch, kernel, devices, torch.bfloat16, dims)
    if why:
        return verdict("fail", f"{name}: {why}", kernel=name)
    ms = milliseconds(torch, kernel, devices[0], dims)
    plain_ms = milliseconds(torch, plain, devices[0], dims) if plain else None
    return verdict("pass", kernel=name, worst=worst, ms=ms, torch_ms=plain_ms)


def without(torch, devices, dims, missing, plain, plain_name, cost):
    """No flash-linear-attention: what serves in its place, whether that is right, and what it costs."""
    missing = f"flash-linear-attention {missing}"
    if plain is None:
        return verdict("not_run", f"{missing}, and neither is Qwen3.5 in transformers: {plain_name}")
    worst, why = prove(torch, plain, devices, torch.bfloat16, dims)
    if why:
        return verdict("fail", f"{missing}, and {plain_name} is wrong: {why}", kernel=plain_name)
    ms = milliseconds(torch, plain, devices[0], dims)
    here = f", {ms:.0f} ms for 2048 tokens × 32 heads" if ms else ""
    return verdict("not_run", f"{missing}: {plain_name} serves instead, right but slow{here}"
                              f"{f'; {cost}' if cost else ''}", kernel=plain_name, worst=worst, torch_ms=ms)


def on_cpu(torch, dims):
    """Without a GPU no kernel of flash-linear-attention's runs; transformers' torch code does, in float32."""
    torch.set_num_threads(1)  # so small a state is computed slower by more
    plain, name = slow()
    if plain is None:
        return verdict("not_run", f"torch sees no GPU, and transformers' torch code can't be loaded: {name}")
    worst, why = prove(torch, plain, ["cpu"], torch.float32, dims)
    if why:
        return verdict("fail", f"{name}, on the CPU: {why}", kernel=name)
    return verdict("not_run", f"torch sees no GPU, which flash-linear-attention's kernels need: proven is {name}, "
                              "on the CPU", kernel=name, worst=worst)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dims", type=int, nargs=2, default=list(DIMS), metavar=("KEY", "VALUE"),
                        help="of a head (default: %(default)s)")
    dims = parser.parse_args().dims
    try:
        import torch
    except Exception as error:
        found = verdict("fail", one_line(error))
    else:
        found = check(torch, tuple(dims))
    print(json.dumps(found))
    sys.exit(EXITS[found["status"]])


if __name__ == "__main__":
    main()
