"""Travels with certify.py: attention forward and backward on the card, against float32; a hybrid's linear layers."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import flash_attn_check
import gated_delta
from certify_compute import dtype, gpu, name_of
from processes import NotRun, largest, one_line, result


def sdpa(expect):
    """Relative differences of PyTorch's scaled_dot_product_attention in the training dtype from the formula in float32,
    for the head dimensions of the models that train here."""
    torch = gpu(expect)
    kind = dtype(torch)
    cases = [{"head_dim": head_dim, "causal": causal, "differences": flash_attn_check.compare(
        torch, flash_attn_check.sdpa(torch), "cuda", head_dim, causal, kind)}
        for head_dim in expect["head_dims"] for causal in (False, True)]
    worst = largest([error for case in cases for error in case["differences"]])
    return result("measured", data={"dtype": name_of(kind), "cases": cases, "worst": worst})


def linear_attention(expect):
    """What gated_delta.py finds; a missing fast kernel is measured too, and judged on the controller."""
    import torch

    asked = expect["gated_delta"]
    found = gated_delta.check(torch, tuple(asked["dims"]), asked["cost"])
    if found["status"] == "fail":
        return result("fail", why=found["why"])
    if not torch.cuda.is_available() or "worst" not in found:  # on the CPU it is no proof of any card
        raise NotRun(found["why"] + (f", {found['worst']:.1e} apart" if "worst" in found else ""))
    return result("measured", data={key: found.get(key) for key in ("kernel", "worst", "ms", "torch_ms")}
                  | {"missing": found["why"]})


def flash_attention(expect):
    """What flash_attn_check.py beside this file finds of what training uses, in a process of its own."""
    gpu(expect)
    used = flash_attn_check.recorded(flash_attn_check.FLASH_2)
    if used in ("sdpa", flash_attn_check.FLASH_2):
        used, found = flash_attn_check.FLASH_2, importlib.util.find_spec("flash_attn")
        if found is None or found.origin is None:  # a folder alone is no package; a broken one is the check's to name
            raise NotRun("flash-attn isn't installed: training uses SDPA")
    program = Path(__file__).resolve().parent / "flash_attn_check.py"
    if not program.exists():
        raise NotRun("flash_attn_check.py isn't beside this program")
    command = [sys.executable, str(program), "--attention", used, "--head-dims", *map(str, expect["head_dims"])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    try:
        said = json.loads(done.stdout.strip().splitlines()[-1])
    except (ValueError, IndexError):
        return result("fail", why=f"its check ended with {done.returncode}: {one_line(done.stderr[-300:])}")
    if said["status"] == "not_run":
        raise NotRun(said["why"])
    if said["status"] == "fail":
        return result("fail", why=said["why"], data={"version": said.get("version")})
    return result("measured", data={"version": said.get("version"), "worst": said["worst"],
                                    "speed": said.get("speed") or []})
