"""How fast a training runs on a card: operations a token ÷ what the card does a second. An estimate. Pure."""

from __future__ import annotations

from qwen_rig.catalog.models import Model, speed
from qwen_rig.frozen import frozen


@frozen
class Rate:
    """bf16 TFLOP/s of a card, and who says so; `measured`: a matrix product that was timed, not a published peak."""

    tflops: float
    source: str
    measured: bool


def published(card: str) -> Rate | None:
    """NVIDIA's own figure of a card by its name; None where there is none here."""
    peak = speed().peaks.get(card)
    return Rate(peak, f"NVIDIA's peak of {peak:g} TFLOP/s: nobody measured this card yet", False) if peak else None


def operations(model: Model, method: str, checkpointing: bool) -> float:
    """Floating-point operations a token: forward (again, with checkpointing) and backward."""
    each = speed()
    forward = each.forward * (2 if checkpointing else 1)
    return (forward + (each.backward if method == "full" else each.backward_frozen)) * model.active


def launch_s(model: Model, method: str, checkpointing: bool, fast_kernels: bool = True) -> float:
    """Seconds that a forward and a backward take at least, however few their tokens: PyTorch starts a layer's kernels
    one by one. A small model doesn't get past them."""
    each = speed().launch
    layer_ms = each.layer_ms * (each.qlora if method == "qlora" else 1) * (each.checkpointing if checkpointing else 1)
    if model.linear_attention:
        layer_ms *= each.hybrid_fast if fast_kernels else each.hybrid_slow
    return model.num_hidden_layers * layer_ms / 1000


def tokens_per_second(model: Model, method: str, checkpointing: bool, rate: Rate, tokens: int,
                      fast_kernels: bool = True) -> float:
    """What one card trains. `tokens`: of a batch; `fast_kernels`: flash-linear-attention is there, which a hybrid
    wants."""
    each = speed()
    share = each.share if rate.measured else each.rest
    if method == "qlora":
        share *= each.qlora
    if model.linear_attention:
        share *= each.hybrid.fast if fast_kernels else each.hybrid.slow
    computes = share * rate.tflops * 1e12 / operations(model, method, checkpointing)
    return min(computes, tokens / launch_s(model, method, checkpointing, fast_kernels))
