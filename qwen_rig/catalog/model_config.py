"""A model that a user names: by a part of its name, or by the config.json in its folder.

A shape that can't be read is refused: nothing is filled in for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qwen_rig import homes, strictjson
from qwen_rig.catalog.models import Experts, Linear, Model, family, find, models
from qwen_rig.errors import RigError
from qwen_rig.frozen import frozen

CONFIG = "config.json"
MOST_BYTES = 1 << 20  # of a config.json; Qwen's own have some 3 KB
FAMILY_OF = {"qwen2": "Qwen2", "qwen3": "Qwen3", "qwen3_moe": "Qwen3Moe", "qwen3_5": "Qwen3_5",
             "qwen3_5_text": "Qwen3_5", "qwen3_5_moe": "Qwen3_5Moe", "qwen3_5_moe_text": "Qwen3_5Moe"}


def matching(text: str, where: str) -> list[Model]:
    """The models that a user may mean by a name, a part of one (27B), or a folder with a config.json. RigError where
    there is none."""
    if "/" in text and (text.startswith((".", "/", "~")) or Path(text).is_dir()):
        return [read(homes.expanded(text, where))]
    part = text.lower()
    found = [model for name, model in models().items()
             if name.lower().removeprefix("qwen/").endswith(part) and _begins(name.lower(), part)]
    return found or [find(text, where)]


def _begins(name: str, part: str) -> bool:
    """Whether a part of a name begins where a word does: 7B is no part of 27B."""
    before = name[:len(name) - len(part)]
    return not before or before[-1] in "/-"


def read(folder: Path) -> Model:
    """A model by the config.json in its folder. Raises RigError, one line, where the shape can't be read."""
    path = folder / CONFIG if folder.is_dir() else folder
    try:
        if path.stat().st_size > MOST_BYTES:
            raise RigError("it has more than 1 MiB", str(path), "that is no model's config.json")
        said = strictjson.read(path.read_text(encoding="utf-8"), str(path), f"name a folder with a model's {CONFIG}",
                               MOST_BYTES)
    except OSError as error:
        raise RigError(f"can't be read: {error.strerror}", str(path), f"name a folder with a {CONFIG}") from None
    except UnicodeDecodeError:
        raise RigError("can't be read: not UTF-8 text", str(path), f"name a folder with a model's {CONFIG}") from None
    return from_config(said, str(folder), str(path))


def from_config(said: Any, name: str, where: str) -> Model:
    """A model out of what a config.json says. Raises RigError for a family or a key that is missing or strange."""
    text = said.get("text_config", said) if isinstance(said, dict) else None
    kind = text.get("model_type") if isinstance(text, dict) else None
    if not isinstance(text, dict) or not isinstance(kind, str) or kind not in FAMILY_OF:
        raise RigError(f"model_type {kind!r} isn't one of the Qwen families known here", where,
                       f"it takes {', '.join(FAMILY_OF)}")
    name_of, ways = FAMILY_OF[kind], family(FAMILY_OF[kind])
    config = _Config(text, where)
    shared = config.whole("shared_expert_intermediate_size") if name_of == "Qwen3_5Moe" else 0
    experts = Experts(config.whole("num_experts"), config.whole("num_experts_per_tok"),
                      config.whole("moe_intermediate_size"), shared) if ways.experts else None
    linear = Linear(config.interval(), config.whole("linear_num_key_heads"), config.whole("linear_num_value_heads"),
                    config.whole("linear_key_head_dim"), config.whole("linear_value_head_dim"),
                    config.whole("linear_conv_kernel_dim")) if name_of in ("Qwen3_5", "Qwen3_5Moe") else None
    heads = config.whole("num_attention_heads")
    hidden = config.whole("hidden_size")
    # Qwen2's own config.json has no head_dim: the class divides.
    head_dim = hidden // heads if name_of == "Qwen2" and "head_dim" not in text else config.whole("head_dim")
    return Model(name=name, ways=ways, family=name_of, hidden_size=hidden, num_attention_heads=heads, head_dim=head_dim,
                 intermediate_size=None if experts else config.whole("intermediate_size"),
                 num_hidden_layers=config.whole("num_hidden_layers"),
                 num_key_value_heads=config.whole("num_key_value_heads"), vocab_size=config.whole("vocab_size"),
                 tie_word_embeddings=config.flag("tie_word_embeddings", said), experts=experts, linear_attention=linear)


@frozen
class _Config:
    """The keys of a config.json, each checked when it is asked for."""

    text: Mapping[str, Any]
    where: str

    def whole(self, key: str) -> int:
        value = self.text.get(key)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 1 << 24:
            raise RigError(f"{key} is {'missing' if value is None else repr(value)[:60]}: the shape can't be read",
                           self.where, "give the model's whole config.json")
        return value

    def flag(self, key: str, outer: Mapping[str, Any]) -> bool:
        value = outer.get(key, self.text.get(key))
        if not isinstance(value, bool):
            raise RigError(f"{key} is {'missing' if value is None else repr(value)[:60]}: the shape can't be read",
                           self.where, "give the model's whole config.json")
        return value

    def interval(self) -> int:
        """Every which layer has full attention, by `layer_types` where they stand, else by the interval."""
        kinds = self.text.get("layer_types")
        if not isinstance(kinds, list):
            return self.whole("full_attention_interval")
        full = [n + 1 for n, kind in enumerate(kinds) if kind == "full_attention"]
        every = full[0] if full else len(kinds) + 1
        if len(kinds) != self.whole("num_hidden_layers") or full != [*range(every, len(kinds) + 1, every)] or not full:
            raise RigError("layer_types aren't linear_attention with full_attention at a fixed distance", self.where,
                           "only such hybrids are known here")
        return every
