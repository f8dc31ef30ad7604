"""Which Qwen fits a card by LoRA and by QLoRA: arithmetic over qwen_rig/data/models.yml. Pure.

Weights and adapters are counted; activations, logits and overhead are estimates, and are called so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from qwen_rig.catalog.datafile import DATA, Flag, MaybeTexts, Number, Row, Text, Whole, load

BATCHES = (16, 8, 4, 2, 1)  # what divides the guide's effective 16
RANK = 16  # of the adapter that train_qwen.py trains on all linear layers
MIB = 1 << 20


@dataclass(frozen=True)
class _Shape(Row):
    family: Text
    billions: Number
    hidden_size: Whole
    intermediate_size: Whole
    num_hidden_layers: Whole
    num_attention_heads: Whole
    num_key_value_heads: Whole
    head_dim: Whole
    vocab_size: Whole
    tie_word_embeddings: Flag


@dataclass(frozen=True)
class Model(_Shape):
    """A Qwen by shape; `billions` is what its model card says."""

    name: str

    @property
    def linears(self) -> tuple[tuple[int, int], ...]:
        """(in, out) of a layer's linear maps: q, k, v, o, gate, up, down."""
        q, kv = self.num_attention_heads * self.head_dim, self.num_key_value_heads * self.head_dim
        hidden, inner = self.hidden_size, self.intermediate_size
        return (hidden, q), (hidden, kv), (hidden, kv), (q, hidden), (hidden, inner), (hidden, inner), (inner, hidden)

    @property
    def linear(self) -> int:
        """Parameters of all layers' linear maps: what LoRA sits on and 4 bits may hold."""
        return self.num_hidden_layers * sum(a * b for a, b in self.linears)

    @property
    def other(self) -> int:
        """The rest: embedding, head, biases (Qwen2: q, k, v) or head norms (Qwen3), norms."""
        q, kv = self.num_attention_heads * self.head_dim, self.num_key_value_heads * self.head_dim
        small = q + 2 * kv if self.family == "Qwen2" else 2 * self.head_dim
        embedding = self.vocab_size * self.hidden_size * (1 if self.tie_word_embeddings else 2)
        return embedding + self.num_hidden_layers * (small + 2 * self.hidden_size) + self.hidden_size

    @property
    def adapter(self) -> int:
        """Parameters of a LoRA of rank 16 on all linear maps of the layers."""
        return self.num_hidden_layers * RANK * sum(a + b for a, b in self.linears)


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


@dataclass(frozen=True)
class _Cost(Row):
    bytes: Number
    sure: Flag
    source: Text


@dataclass(frozen=True)
class _Memory(Row):
    weight: _Cost
    weight_4bit: _Cost
    adapter: _Cost
    logit: _Cost
    activation_hidden: _Cost
    activation_inner: _Cost
    checkpoint: _Cost
    context_mib: _Cost
    usable: _Cost


@dataclass(frozen=True)
class _Prefetch(Row):
    source: Text
    files: MaybeTexts = ()


@dataclass(frozen=True)
class ModelsFile(Row):
    """The form of models.yml."""

    source: Text
    models: dict[Text, _Shape]
    prefetch: _Prefetch
    memory: _Memory


@cache
def _data() -> tuple[dict[str, Model], dict[str, float], tuple[str, ...]]:
    file = load(DATA / "models.yml", ModelsFile)
    return ({name: Model(name=name, **vars(shape)) for name, shape in file.models.items()},
            {key: cost.bytes for key, cost in vars(file.memory).items()}, file.prefetch.files)


def models() -> Mapping[str, Model]:
    """All models by name, smallest first in each family."""
    return _data()[0]


def files_to_fetch() -> tuple[str, ...]:
    """Patterns of the files that training reads of a model's repository."""
    return _data()[2]


def need(model: Model, four_bits: bool, batch: int, length: int, checkpointing: bool) -> Need:
    """What one process takes for that batch of texts of `length` tokens."""
    each, tokens, layers = _data()[1], batch * length, model.num_hidden_layers
    layer = tokens * (each["activation_hidden"] * model.hidden_size
                      + each["activation_inner"] * model.intermediate_size)
    kept = layer + layers * tokens * each["checkpoint"] * model.hidden_size if checkpointing else layers * layer
    weights = model.linear * (each["weight_4bit"] if four_bits else each["weight"]) + model.other * each["weight"]
    return Need(weights / MIB, model.adapter * each["adapter"] / MIB, kept / MIB,
                tokens * model.vocab_size * each["logit"] / MIB, each["context_mib"])


def fit(model: Model, memory_mib: float, four_bits: bool = False, length: int = 1024) -> Fit | None:
    """The largest batch that fits a card of `memory_mib`, the same without checkpointing rather than with it."""
    usable = memory_mib * _data()[1]["usable"]
    for batch in BATCHES:
        for checkpointing in (False, True):
            found = need(model, four_bits, batch, length, checkpointing)
            if found.total <= usable:
                return Fit(batch, checkpointing, found)
    return None


def most(memory_mib: float, length: int = 1024) -> int:
    """The largest batch that a card of `memory_mib` holds of the smallest model, by whatever means: all of its memory,
    and gradient checkpointing. What claims to be more was not measured on that card."""
    model = min(models().values(), key=lambda model: model.linear + model.other)
    fixed, one = (need(model, True, batch, length, True).total for batch in (0, 1))
    return max(0, int((memory_mib - fixed) / (one - fixed)))


def largest(memory_mib: float, family: str = "Qwen2", four_bits: bool = False) -> str | None:
    """The name of the largest model of a family that fits a card; None where none does."""
    fitting = [m for m in models().values() if m.family == family and fit(m, memory_mib, four_bits)]
    return max(fitting, key=lambda m: m.linear).name if fitting else None
