"""Which Qwen fits a card by LoRA, by QLoRA and in full, with what batch: arithmetic over data/models.yml. Pure.

Weights and adapters are counted; activations, logits and overhead are estimates, and are called so. docs/fits.md holds
the sums against public measurements.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from qwen_rig.catalog.models import RANK, Model, costs, models
from qwen_rig.frozen import frozen

BATCHES = (16, 8, 4, 2, 1)  # what divides the guide's effective 16
METHODS = ("lora", "qlora", "full")
LENGTH = 1024  # tokens of a text, unless it is told otherwise: train_qwen.py's --max_length
MIB = 1 << 20


@frozen
class Need:
    """What one training process takes, in MiB; `estimate` is the part that is estimated."""

    weights: float
    adapter: float
    activations: float
    logits: float
    context: float

    @property
    def estimate(self) -> float:
        return self.activations + self.logits + self.context

    @property
    def total(self) -> float:
        return self.weights + self.adapter + self.estimate


@frozen
class Fit:
    """How a model fits: the largest batch of BATCHES, and whether it takes gradient checkpointing."""

    batch: int
    checkpointing: bool
    need: Need


def need(model: Model, method: str, batch: int, length: int, checkpointing: bool, rank: int = RANK,
         measured: float = 1.0) -> Need:
    """What one process takes for that batch of texts of `length` tokens. `measured`: by what the activations and logits
    that a certificate measured on this card differ from the estimate."""
    each, tokens, full = costs(), batch * length, model.full_layers
    every = each["activation_hidden"] * model.hidden_size + each["activation_inner"] * model.inner
    attention, delta = each["activation_mixer"] * model.mixer, each["activation_delta"] * model.delta_mixer
    columns = min(model.vocab_size, model.ways.logit_columns or model.vocab_size)
    in_float32 = method == "qlora" and model.ways.other_4bit == 4
    seen = min(tokens, model.ways.logit_tokens or tokens)
    logits = seen * columns * (each["logit_4bit"] if in_float32 else model.ways.logit)
    layers = model.num_hidden_layers
    if checkpointing:
        one = tokens * (every + max(attention, delta)) * each["layer_backward"]
        kept = tokens * layers * each["checkpoint"] * model.hidden_size + max(0.0, one - logits)
    else:
        kept = tokens * (layers * every + full * attention + (layers - full) * delta)
    return Need(_weights(model, method) / MIB, _adapter(model, method, rank) / MIB, measured * kept / MIB,
                measured * logits / MIB, each["context_mib"])


def _weights(model: Model, method: str) -> float:
    each = costs()
    if method == "full":
        return model.parameters * each["weight_full"]
    if method == "lora":
        return model.parameters * each["weight"]
    stacked = model.linear - model.in_4bit
    return model.in_4bit * each["weight_4bit"] + stacked * each["weight"] + model.other * model.ways.other_4bit


def _adapter(model: Model, method: str, rank: int) -> float:
    if method == "full":
        return 0
    return model.adapter_of(rank) * (model.ways.adapter_4bit if method == "qlora" else costs()["adapter"])


def fit(model: Model, memory_mib: float, method: str = "lora", length: int = LENGTH, rank: int = RANK,
        measured: float = 1.0, checkpointing: Sequence[bool] = (False, True)) -> Fit | None:
    """The largest batch that fits a card of `memory_mib`, the same without checkpointing rather than with it; None
    where none does."""
    usable = memory_mib * costs()["usable"]
    for batch in BATCHES:
        for with_it in checkpointing:
            found = need(model, method, batch, length, with_it, rank, measured)
            if found.total <= usable:
                return Fit(batch, with_it, found)
    return None


def smallest() -> Model:
    """The smallest model: a certificate's half-billion Qwen has its shape and its vocabulary."""
    return min((model for model in models().values() if model.family == "Qwen2"), key=lambda model: model.parameters)


def most(memory_mib: float, length: int = LENGTH) -> int:
    """The largest batch that a card of `memory_mib` holds of the smallest model, by whatever means: all of its memory,
    and gradient checkpointing, by whichever stack keeps least. What claims to be more was not measured on that card."""
    lean = replace(smallest(), ways=min((model.ways for model in models().values() if not model.ways.logit_columns),
                                        key=lambda ways: (ways.logit, ways.other_4bit)))
    fixed, one = (need(lean, "qlora", batch, length, True).total for batch in (0, 1))
    return max(0, int((memory_mib - fixed) / (one - fixed)))


def measured(memory_mib: float, batch: int, length: int = LENGTH) -> float:
    """By what a card's own activations and logits differ from the estimate, from the largest batch of the half-billion
    Qwen by LoRA that its certificate measured: at most what fills the card, and never less than the estimate by more
    than half, since a certificate may have stopped early."""
    estimate = need(smallest(), "lora", max(1, batch), length, False)
    room = memory_mib - estimate.weights - estimate.adapter - estimate.context
    return max(0.5, room / (estimate.activations + estimate.logits)) if batch > 0 else 2.0


def largest(memory_mib: float, family: str = "Qwen2", method: str = "lora") -> str | None:
    """The name of the largest model of a family that fits a card; None where none does."""
    fitting = [m for m in models().values() if m.family == family and fit(m, memory_mib, method)]
    return max(fitting, key=lambda m: m.linear).name if fitting else None
