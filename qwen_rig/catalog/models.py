"""Qwen models by shape: qwen_rig/data/models.yml, loaded and checked, and what is counted from a shape. Pure but for
reading that file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from typing import Annotated, Any

from qwen_rig.catalog.datafile import DATA, Flag, MaybeTexts, Number, Row, Text, Texts, Whole, load, one_of
from qwen_rig.errors import RigError
from qwen_rig.frozen import frozen

RANK = 16  # of the adapter that train_qwen.py trains on all linear layers, unless it is told another

Maps = tuple[tuple[int, int], ...]


@frozen
class Experts(Row):
    """A mixture of experts: how many, how many a token takes, how wide each is, and the shared one (0: none)."""

    num: Whole
    per_token: Whole
    intermediate_size: Whole
    shared: Whole


@frozen
class Linear(Row):
    """Gated DeltaNet: each `full_every`-th layer has full attention, all others this."""

    full_every: Whole
    key_heads: Whole
    value_heads: Whole
    key_dim: Whole
    value_dim: Whole
    conv: Whole

    @property
    def keys(self) -> int:
        return self.key_heads * self.key_dim

    @property
    def values(self) -> int:
        return self.value_heads * self.value_dim


@dataclass(frozen=True, kw_only=True)
class Shape(Row):
    """What a config.json says of a model's size. `intermediate_size`: None where every layer has experts."""

    family: Text
    hidden_size: Whole
    intermediate_size: Whole | None
    num_hidden_layers: Whole
    num_attention_heads: Whole
    num_key_value_heads: Whole
    head_dim: Whole
    vocab_size: Whole
    tie_word_embeddings: Flag
    experts: Experts | None = None
    linear_attention: Linear | None = None


@dataclass(frozen=True, kw_only=True)
class Published(Shape):
    """A shape with the parameters that are published of it, in 10⁹."""

    billions: Number


@dataclass(frozen=True, kw_only=True)
class Family(Row):
    """What a family of transformers takes; the bytes are explained in models.yml."""

    stack: Text
    source: Text
    logit: Whole
    logit_columns: Whole | None
    other_4bit: Whole
    adapter_4bit: Whole
    precisions: Texts
    logit_tokens: Whole | None = None
    older_drivers: Text | None = None
    experts: Annotated[Text, one_of("modules", "stacked")] | None = None
    variants: MaybeTexts = ()


@dataclass(frozen=True, kw_only=True)
class Model(Shape):
    """A Qwen by its shape and its family's ways."""

    name: str
    ways: Family
    billions: float | None = None

    @property
    def full_layers(self) -> int:
        """How many layers have full attention."""
        return self.num_hidden_layers // self.linear_attention.full_every if self.linear_attention \
            else self.num_hidden_layers

    @property
    def queries(self) -> int:
        """The width of all query heads."""
        return self.num_attention_heads * self.head_dim

    @property
    def attention(self) -> Maps:
        """(in, out) of full attention's maps: q (with its output gate, in a hybrid), k, v, o."""
        hidden, kv = self.hidden_size, self.num_key_value_heads * self.head_dim
        gated = 2 if self.linear_attention else 1
        return (hidden, gated * self.queries), (hidden, kv), (hidden, kv), (self.queries, hidden)

    @property
    def delta(self) -> Maps:
        """(in, out) of a linear layer's maps: q with k and v, gate, decay, beta, out; () where there are none."""
        if (it := self.linear_attention) is None:
            return ()
        hidden = self.hidden_size
        return ((hidden, 2 * it.keys + it.values), (hidden, it.values), (hidden, it.value_heads),
                (hidden, it.value_heads), (it.values, hidden))

    @property
    def dense(self) -> Maps:
        """(in, out) of what every token takes of the MLP: gate, up, down, or the shared expert's and its gate."""
        hidden = self.hidden_size
        inner = self.experts.shared if self.experts else self.intermediate_size or 0
        maps: Maps = ((hidden, inner), (hidden, inner), (inner, hidden)) if inner else ()
        return (*maps, (hidden, 1)) if self.experts and inner else maps

    @property
    def expert(self) -> Maps:
        """(in, out) of one expert's maps; () where there are none."""
        if self.experts is None:
            return ()
        hidden, inner = self.hidden_size, self.experts.intermediate_size
        return (hidden, inner), (hidden, inner), (inner, hidden)

    @property
    def expert_parameters(self) -> int:
        """Parameters of all experts, without their routers."""
        return self.num_hidden_layers * self.experts.num * _size(self.expert) if self.experts else 0

    @property
    def linear(self) -> int:
        """Parameters of all layers' linear maps."""
        return self._everywhere(_size) + self.expert_parameters + self.routers

    @property
    def routers(self) -> int:
        return self.num_hidden_layers * self.hidden_size * self.experts.num if self.experts else 0

    @property
    def in_4bit(self) -> int:
        """Those that 4 bits may hold: experts that are stacked parameters stay as they are."""
        stacked = self.expert_parameters + self.routers if self.ways.experts == "stacked" else 0
        return self.linear - stacked

    @property
    def embedding(self) -> int:
        return self.vocab_size * self.hidden_size

    @property
    def other(self) -> int:
        """The rest: embedding, head, biases (Qwen2: q, k, v), head norms, a linear layer's convolution, norms."""
        kv, it = self.num_key_value_heads * self.head_dim, self.linear_attention
        full = self.queries + 2 * kv if self.family == "Qwen2" else 2 * self.head_dim
        delta = (2 * it.keys + it.values) * it.conv + 2 * it.value_heads + it.value_dim if it else 0
        small = self.full_layers * full + (self.num_hidden_layers - self.full_layers) * delta
        return (self.embedding * (1 if self.tie_word_embeddings else 2) + small
                + self.num_hidden_layers * 2 * self.hidden_size + self.hidden_size)

    @property
    def parameters(self) -> int:
        """All of them, of the text model."""
        return self.linear + self.other

    @property
    def active(self) -> int:
        """Those that a token is multiplied with: the head and, of the experts, the ones that it takes."""
        idle = self.expert_parameters * (self.experts.num - self.experts.per_token) // self.experts.num \
            if self.experts else 0
        return self.linear - idle + self.embedding

    @property
    def adapter(self) -> int:
        """Parameters of a LoRA of rank 16 on all linear maps of the layers that are modules."""
        return self.adapter_of(RANK)

    def adapter_of(self, rank: int) -> int:
        """The same of any rank."""
        sum_ = self._everywhere(_edges)
        if self.experts and self.ways.experts == "modules":
            router = self.hidden_size + self.experts.num
            sum_ += self.num_hidden_layers * (self.experts.num * _edges(self.expert) + router)
        return rank * sum_

    @property
    def mixer(self) -> int:
        """The width of full attention: queries (twice, with an output gate), keys and values."""
        return (2 if self.linear_attention else 1) * self.queries + 2 * self.num_key_value_heads * self.head_dim

    @property
    def delta_mixer(self) -> int:
        """The width of a linear layer: queries, keys, values and gate; 0 where there are none."""
        it = self.linear_attention
        return 2 * it.keys + 2 * it.values if it else 0

    @property
    def inner(self) -> int:
        """The inner units that a token takes in a layer."""
        if self.experts:
            return self.experts.per_token * self.experts.intermediate_size + self.experts.shared
        return self.intermediate_size or 0

    def _everywhere(self, measure: Any) -> int:
        """A measure of the maps of all layers, without their experts."""
        full, layers = self.full_layers, self.num_hidden_layers
        mixers = full * measure(self.attention) + (layers - full) * measure(self.delta)
        return int(mixers + layers * measure(self.dense))


def _size(maps: Maps) -> int:
    return sum(a * b for a, b in maps)


def _edges(maps: Maps) -> int:
    return sum(a + b for a, b in maps)


@frozen
class _Cost(Row):
    bytes: Number
    sure: Flag
    source: Text


@frozen
class _Memory(Row):
    weight: _Cost
    weight_4bit: _Cost
    weight_full: _Cost
    adapter: _Cost
    logit_4bit: _Cost
    activation_hidden: _Cost
    activation_mixer: _Cost
    activation_delta: _Cost
    activation_inner: _Cost
    layer_backward: _Cost
    checkpoint: _Cost
    context_mib: _Cost
    usable: _Cost


@frozen
class _Hybrid(Row):
    fast: Number
    slow: Number
    source: Text
    compile_s: Whole
    compile_source: Text


@frozen
class _Launch(Row):
    source: Text
    layer_ms: Number
    qlora: Number
    checkpointing: Number
    hybrid_fast: Number
    hybrid_slow: Number


@frozen
class Speed(Row):
    """The figures of a training's speed; models.yml says what each is."""

    source: Text
    forward: Number
    backward_frozen: Number
    backward: Number
    share: Number
    rest: Number
    qlora: Number
    hybrid: _Hybrid
    launch: _Launch
    peak_source: Text
    peaks: dict[Text, Number]


@frozen
class _Prefetch(Row):
    source: Text
    files: MaybeTexts = ()


@frozen
class ModelsFile(Row):
    """The form of models.yml."""

    source: Text
    families: dict[Text, Family]
    models: dict[Text, Published]
    prefetch: _Prefetch
    memory: _Memory
    speed: Speed


@cache
def _file() -> ModelsFile:
    return load(DATA / "models.yml", ModelsFile)


@cache
def models() -> Mapping[str, Model]:
    """All models by name, smallest first in each family."""
    file = _file()
    return {name: Model(name=name, ways=file.families[row.family], **vars(row)) for name, row in file.models.items()}


def family(name: str) -> Family:
    """What a family of transformers takes. KeyError for one that isn't in the file."""
    return _file().families[name]


def head_dims(families: Iterable[str]) -> tuple[int, ...]:
    """The head dimensions of all models of these families, the least first."""
    wanted = set(families)
    return tuple(sorted({model.head_dim for model in models().values() if model.family in wanted}))


def linear_layers(family: str) -> dict[str, Any] | None:
    """What the proof of a family's linear layers is told: a head's dimensions, and what a missing fast kernel costs;
    None where the family has none."""
    it = next((model.linear_attention for model in models().values()
               if model.family == family and model.linear_attention), None)
    if it is None:
        return None
    hybrid = speed().hybrid
    return {"dims": [it.key_dim, it.value_dim],
            "compile_s": hybrid.compile_s,
            "cost": f"a training step takes about {hybrid.fast / hybrid.slow:.1f} times as long "
                    f"({hybrid.source.partition(';')[0]})"}


@cache
def costs() -> Mapping[str, float]:
    """Bytes by what takes them."""
    return {key: cost.bytes for key, cost in vars(_file().memory).items()}


def speed() -> Speed:
    return _file().speed


def files_to_fetch() -> tuple[str, ...]:
    """Patterns of the files that training reads of a model's repository."""
    return _file().prefetch.files


def find(name: str, where: str) -> Model:
    """The model of that name as the hub has it, or an ending of it that changes no shape (-Instruct). RigError where
    its shape isn't known."""
    known = models()
    if name in known:
        return known[name]
    for model in known.values():
        if name.startswith(model.name) and name[len(model.name):] in model.ways.variants:
            return Model(**{**vars(model), "name": name})
    close = get_close_matches(name, known, 3)
    raise RigError(f"the shape of {name!r} isn't known, and isn't guessed", where,
                   (f"did you mean {', '.join(close)}? " if close else "")
                   + "`rig fits --memory 32607` lists those that are")
