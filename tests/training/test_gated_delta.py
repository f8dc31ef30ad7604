"""The proof of a hybrid's linear layers, on the CPU: transformers' own torch code passes it, by its own name and as no
proof of a card; wrong kernels are found, whatever is wrong with them."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from qwen_rig.catalog.models import linear_layers
from tests import HANG_S

pytestmark = pytest.mark.real
HOST = Path(__file__).parents[2] / "qwen_rig" / "host"
ASKED = linear_layers("Qwen3_5")
KERNELS = """
import json, sys, torch
sys.path.insert(0, sys.argv[1])
import gated_delta as proof
import verify
torch.set_num_threads(1)
sys.modules.setdefault("fla", None)
right = proof.slow()[0]
NAMES = ("q", "k", "v", "g", "beta")

class Twist(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, how):
        ctx.how = how
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        gradient = gradient.clone(memory_format=torch.contiguous_format)
        return ctx.how(gradient), None

def gradient(which, how):
    def rule(q, k, v, g, beta, **more):
        given = dict(zip(NAMES, (q, k, v, g, beta)))
        given[which] = Twist.apply(given[which], how)
        return right(given["q"], given["k"], given["v"], g=given["g"], beta=given["beta"], **more)
    return rule

def output(how):
    def rule(*given, **named):
        out, state = right(*given, **named)
        return how(out.clone()), state
    return rule

def put(value, *where):
    def how(x):
        x[where] = value
        return x
    return how

HOWS = {"zero": lambda x: x * 0, "sign": lambda x: -x, "20 % more": lambda x: 1.2 * x,
        "nan in one place": put(float("nan"), 0, -1, -1), "infinite": put(float("inf"), 0, 0, 0),
        "the last token lost": put(0.0, slice(None), -1), "one head's last tokens": put(0.0, 0, slice(-8, None), 1)}
wrong = {f"{which}, {name}": gradient(which, how) for which in NAMES for name, how in HOWS.items()}
wrong |= {f"output, {name}": output(how) for name, how in HOWS.items()}
wrong |= {"no decay": lambda q, k, v, g, beta, **more: right(q, k, v, g=0 * g, beta=beta, **more),
          "no norm": lambda *given, **named: right(*given, **{**named, "use_qk_l2norm_in_kernel": False}),
          "nothing arrives": lambda *given, **named: (right(*given, **named)[0].detach().requires_grad_(), None),
          "raises": lambda *given, **named: 1 / 0}
found = {name: proof.prove(torch, rule, ["cpu"], torch.bfloat16, (128, 128))[1] for name, rule in wrong.items()}
proof.fast = lambda: (wrong["v, sign"], "a wrong kernel")
asked = json.loads(sys.argv[2])
seen = {"right": proof.prove(torch, right, ["cpu"], torch.bfloat16, (128, 128)),
        "as a card's": proof.on_gpu(torch, ["cpu"], (128, 128), "")}
proof.fast = lambda: (None, "isn't installed")
seen["missing"] = proof.on_gpu(torch, ["cpu"], (128, 128), asked["cost"])
seen["verified"] = verify.check_gated_delta({"gated_delta": asked})
print(json.dumps({"wrong": found, **seen}))
"""


@pytest.fixture(scope="module")
def told(python: str) -> dict[str, Any]:
    done = subprocess.run([python, "-c", KERNELS, str(HOST), json.dumps(ASKED)], text=True, capture_output=True,
                          timeout=4 * HANG_S, env={**os.environ, "CUDA_VISIBLE_DEVICES": ""})
    assert done.returncode == 0, done.stderr[-2000:]
    made: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return made


def test_transformers_own_code_is_right(told: dict[str, Any]) -> None:
    worst, why = told["right"]
    assert why is None and worst < 5e-3


def test_each_wrong_kernel_is_found_and_named(told: dict[str, Any]) -> None:
    assert len(told["wrong"]) == 46
    assert [name for name, why in told["wrong"].items() if why is None] == []
    assert told["wrong"]["v, sign"].startswith("whole blocks: the gradient of v is wrong by 2.0e+00 of its size")
    assert told["wrong"]["k, nan in one place"] == "whole blocks: the gradient of k is NaN or infinite"
    assert told["wrong"]["nothing arrives"] == "whole blocks: RuntimeError: the gradient of q doesn't arrive"
    assert told["as a card's"]["status"] == "fail" and "a wrong kernel: whole blocks" in told["as a card's"]["why"]


def test_a_missing_kernel_is_told_with_what_it_costs_and_the_cpu_is_no_proof(told: dict[str, Any]) -> None:
    missing, verified = told["missing"], told["verified"]
    assert missing["status"] == verified["status"] == "not_run"
    assert missing["why"].startswith("flash-linear-attention isn't installed: the torch code of transformers ")
    assert missing["why"].endswith("a training step takes about 1.8 times as long (huggingface/transformers#48718: "
                                   "0.70 s a step with flash-linear-attention, 1.22 without)")
    assert verified["why"].startswith("torch sees no GPU") and verified["why"].endswith("on the CPU")
    assert verified["measured"]["kernel"].startswith("the torch code of transformers ")
    assert verified["measured"]["worst"] < 1e-4


def test_it_runs_alone(python: str, tmp_path: Path) -> None:
    alone = tmp_path / "gated_delta.py"
    alone.write_bytes((HOST / "gated_delta.py").read_bytes())
    done = subprocess.run([python, str(alone)], text=True, capture_output=True, timeout=4 * HANG_S,
                          env={**os.environ, "CUDA_VISIBLE_DEVICES": ""})
    assert done.returncode == 3 and json.loads(done.stdout)["status"] == "not_run", done.stderr
