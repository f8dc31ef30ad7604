"""Travels with certify.py: attention forward and backward on the card, against float32."""

import json
import subprocess
import sys
from pathlib import Path

from certify_compute import dtype, gpu, name_of
from processes import NotRun, largest, one_line, result

SHAPE = (2, 8, 1024)  # batch, heads, length
HEAD_DIMS = (64, 128)


def sdpa(expect):
    """Relative differences of PyTorch's scaled_dot_product_attention in the training dtype from the formula in float32.

    The formula is written out, so that no kernel of the same library stands on both sides.
    """
    torch = gpu(expect)
    kind, cases = dtype(torch), []
    torch.backends.cuda.matmul.allow_tf32 = False

    def plain(q, k, v, causal):
        weights = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
        if causal:
            hidden = torch.ones(q.shape[-2], q.shape[-2], dtype=torch.bool, device=q.device).triu(1)
            weights = weights.masked_fill(hidden, float("-inf"))
        return weights.softmax(-1) @ v

    for head_dim in HEAD_DIMS:
        for causal in (False, True):
            torch.manual_seed(head_dim + causal)
            q, k, v, upstream = (torch.randn(*SHAPE, head_dim, device="cuda", dtype=kind) for _ in range(4))
            ours = [x.clone().requires_grad_() for x in (q, k, v)]
            out = torch.nn.functional.scaled_dot_product_attention(*ours, is_causal=causal)
            out.backward(upstream)
            theirs = [x.float().requires_grad_() for x in (q, k, v)]
            exact = plain(*theirs, causal)
            exact.backward(upstream.float())
            pairs = [(out, exact)] + [(x.grad, y.grad) for x, y in zip(ours, theirs)]  # noqa: B905
            differences = [((x.float() - y).norm() / y.norm()).item() for x, y in pairs]
            cases.append({"head_dim": head_dim, "causal": causal, "differences": differences})
    worst = largest([error for case in cases for error in case["differences"]])
    return result("measured", data={"dtype": name_of(kind), "cases": cases, "worst": worst})


def flash_attention(expect):
    """What flash_attn_check.py beside this file finds, in a process of its own."""
    gpu(expect)
    try:
        import flash_attn  # noqa: F401  a broken one is the check's to name
    except ModuleNotFoundError:
        raise NotRun("flash-attn isn't installed: training uses SDPA") from None
    except Exception:
        pass
    program = Path(__file__).resolve().parent / "flash_attn_check.py"
    if not program.exists():
        raise NotRun("flash_attn_check.py isn't beside this program")
    done = subprocess.run([sys.executable, str(program)], capture_output=True, text=True, timeout=240)
    try:
        said = json.loads(done.stdout.strip().splitlines()[-1])
    except (ValueError, IndexError):
        return result("fail", why=f"its check ended with {done.returncode}: {one_line(done.stderr[-300:])}")
    if said["status"] == "not_run":
        raise NotRun(said["why"])
    if said["status"] == "fail":
        return result("fail", why=said["why"], data={"version": said.get("version")})
    return result("measured", data={"version": said.get("version"), "worst": said["worst"]})
