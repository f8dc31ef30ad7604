"""Which Qwen fits a card by LoRA and by QLoRA: arithmetic over qwen_rig/data/models.yml. Pure.

Weights and adapters are counted; activations, logits and overhead are estimates, and are called so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from qwen_rig.catalog import schema

DATA = Path(__file__).parent / "data" / "models.yml"
BATCHES = (16, 8, 4, 2, 1)  # what divides the guide's effective 16
RANK = 16  # of the adapter that train_qwen.py trains on all linear layers
MIB = 1 << 20


@dataclass(frozen=True)
class Model:
    """A Qwen by shape; `billions` is what its model card says."""

    name: str
    family: str
    billions: float
    hidden: int
    inner: int
    layers: int
    heads: int
    groups: int
    head: int
    words: int
    tied: bool

    @property
    def linears(self) -> tuple[tuple[int, int], ...]:
        """(in, out) of a layer's linear maps: q, k, v, o, gate, up, down."""
        q, kv = self.heads * self.head, self.groups * self.head
        return ((self.hidden, q), (self.hidden, kv), (self.hidden, kv), (q, self.hidden),
                (self.hidden, self.inner), (self.hidden, self.inner), (self.inner, self.hidden))

    @property
    def linear(self) -> int:
        """Parameters of all layers' linear maps: what LoRA sits on and 4 bits may hold."""
        return self.layers * sum(a * b for a, b in self.linears)

    @property
    def other(self) -> int:
        """The rest: embedding, head, biases (Qwen2: q, k, v) or head norms (Qwen3), norms."""
        q, kv = self.heads * self.head, self.groups * self.head
        small = q + 2 * kv if self.family == "Qwen2" else 2 * self.head
        return (self.words * self.hidden * (1 if self.tied else 2) + self.layers * (small + 2 * self.hidden)
                + self.hidden)

    @property
    def adapter(self) -> int:
        """Parameters of a LoRA of rank 16 on all linear maps of the layers."""
        return self.layers * RANK * sum(a + b for a, b in self.linears)


@dataclass(frozen=True)
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


@dataclass(frozen=True)
class Fit:
    """How a model fits: the largest batch of BATCHES, and whether it takes gradient checkpointing; None: not at all."""

    batch: int
    checkpointing: bool
    need: Need


@cache
def _data() -> tuple[dict[str, Model], dict[str, float], tuple[str, ...]]:
    table = schema.read(DATA)
    table.take("source", str)
    models = {}
    for name, row in table.named_tables("models").items():
        shape: dict[str, Any] = {key: row.take(key, int) for key in
                                 ("hidden", "inner", "layers", "heads", "groups", "head", "words")}
        models[name] = Model(name=name, family=row.take("family", str), billions=row.take("billions", float),
                             tied=row.take("tied", bool), **shape)
        row.done()
    each = {key: float(row.raw["bytes"]) for key, row in table.named_tables("memory").items()}
    fetched = table.table("prefetch")
    patterns = fetched.texts("files")
    fetched.take("source", str)
    fetched.done()
    table.done()
    return models, each, patterns


def models() -> Mapping[str, Model]:
    """All models by name, smallest first in each family."""
    return _data()[0]


def files_to_fetch() -> tuple[str, ...]:
    """Patterns of the files that training reads of a model's repository."""
    return _data()[2]


def need(model: Model, four_bits: bool, batch: int, length: int, checkpointing: bool) -> Need:
    """What one process takes for that batch of texts of `length` tokens."""
    each, tokens = _data()[1], batch * length
    layer = tokens * (each["activation_hidden"] * model.hidden + each["activation_inner"] * model.inner)
    kept = layer + model.layers * tokens * each["checkpoint"] * model.hidden if checkpointing else model.layers * layer
    weights = model.linear * (each["weight_4bit"] if four_bits else each["weight"]) + model.other * each["weight"]
    return Need(weights / MIB, model.adapter * each["adapter"] / MIB, kept / MIB,
                tokens * model.words * each["logit"] / MIB, each["context_mib"])


def fit(model: Model, memory_mib: float, four_bits: bool = False, length: int = 1024) -> Fit | None:
    """The largest batch that fits a card of `memory_mib`, the same without checkpointing rather than with it."""
    usable = memory_mib * _data()[1]["usable"]
    for batch in BATCHES:
        for checkpointing in (False, True):
            found = need(model, four_bits, batch, length, checkpointing)
            if found.total <= usable:
                return Fit(batch, checkpointing, found)
    return None


def largest(memory_mib: float, family: str = "Qwen2", four_bits: bool = False) -> str | None:
    """The name of the largest model of a family that fits a card; None where none does."""
    fitting = [m for m in models().values() if m.family == family and fit(m, memory_mib, four_bits)]
    return max(fitting, key=lambda m: m.linear).name if fitting else None
