"""What GGUF's keys say about a model, as the ``config.json`` its publisher would write, and back.

    llama.attention.head_count = 32  <->  "num_attention_heads": 32

A table for each architecture is read in both directions; what is no plain number (rope and its scalings, biases, a tied head)
has a few lines of its own. Whether GGUF can say a model at all is found out by reading back what was written: a feature that
would get lost on the way is an error that names it.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from chainrule.core.errors import CheckpointError
from chainrule.core.schema import dump
from chainrule.core.shapes import Tensor
from chainrule.hub.build import parts
from chainrule.hub.difference import difference

Config = dict[str, Any]
Shapes = Mapping[str, tuple[int, ...]]

SIZES = {
    "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size",
    "block_count": "num_hidden_layers",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
}
CAPS = {
    "attention.sliding_window": "sliding_window",
    "attn_logit_softcapping": "attn_logit_softcapping",
    "final_logit_softcapping": "final_logit_softcapping",
}
GPT2_SIZES = {
    "context_length": "n_positions",
    "embedding_length": "n_embd",
    "block_count": "n_layer",
    "feed_forward_length": "n_inner",
    "attention.head_count": "n_head",
    "attention.layer_norm_epsilon": "layer_norm_epsilon",
}
USED = {"expert_used_count": "num_experts_per_tok"}


@dataclass(frozen=True, kw_only=True)
class Table:
    """An architecture: its ``model_type``, GGUF's keys for those of the config, and what llama.cpp does without being told."""

    model_type: str
    keys: Mapping[str, str] = field(default_factory=lambda: SIZES)
    always: Mapping[str, Any] = field(default_factory=dict)
    """What the architecture always means, as the config says it; a model for which it is otherwise cannot be written."""
    biases: bool = False
    """Whether ``attention_bias`` and ``mlp_bias`` are seen from the tensors."""
    rope: bool = True


TABLES = {
    "llama": Table(model_type="llama", biases=True),
    "mixtral": Table(model_type="mixtral", keys=SIZES | USED | {"expert_count": "num_local_experts"}),
    "qwen2": Table(model_type="qwen2"),
    "qwen3": Table(model_type="qwen3"),
    "qwen3moe": Table(
        model_type="qwen3_moe",
        keys=SIZES | USED | {"expert_count": "num_experts", "expert_feed_forward_length": "moe_intermediate_size"},
        always={"norm_topk_prob": True},
    ),
    "gemma2": Table(model_type="gemma2", keys=SIZES | CAPS, always={"hidden_activation": "gelu_pytorch_tanh"}),
    "gemma3": Table(model_type="gemma3_text", keys=SIZES | CAPS, always={"hidden_activation": "gelu_pytorch_tanh"}),
    "phi3": Table(model_type="phi3"),
    "glm4": Table(model_type="glm4", biases=True),
    "olmo2": Table(model_type="olmo2"),
    "smollm3": Table(model_type="smollm3"),
    "gpt2": Table(model_type="gpt2", keys=GPT2_SIZES, rope=False),
}
"""llama.cpp's name of an architecture → its table."""
ARCH_OF = {table.model_type: arch for arch, table in TABLES.items()} | {"mistral": "llama", "gemma3": "gemma3"}
ALSO = {"num_experts": "num_local_experts"}
"""Another name of the same key."""
OPTIONAL = {"attention.head_count_kv", "attention.key_length", *CAPS}
"""What a file may leave out, or write as zero."""
FRACTIONS = ("epsilon", "softcapping", "freq_base", "freq_base_swa", "factor", "scale_linear", "beta_fast", "beta_slow")
LARGEST = 1 << 24
GEMMA2 = {"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0, "sliding_window": 4096}
"""What a file may leave out."""


def architecture(metadata: Mapping[str, Any], where: object) -> str:
    """The name in the tables of the architecture a file holds; raises ``CheckpointError`` naming those that are known."""
    name = metadata.get("general.architecture")
    if name == "llama" and metadata.get("llama.expert_count"):
        return "mixtral"
    if name not in TABLES or name == "mixtral":
        known = ", ".join(sorted(set(TABLES) - {"mixtral"}))
        raise CheckpointError(f"{where} holds a model of the architecture {name!r}, which is not read here; read are {known}")
    return str(name)


def stored_name(arch: str) -> str:
    """What the file calls an architecture of the tables."""
    return "llama" if arch == "mixtral" else arch


def published(arch: str, metadata: Mapping[str, Any], shapes: Shapes, factors: Tensor | None, where: object) -> Config:
    """The ``config.json`` that a file's metadata means. ``factors`` is the tensor ``rope_freqs``, if there is one."""
    table, said = TABLES[arch], _Said(metadata, stored_name(arch), where)
    config: Config = {"model_type": table.model_type, **table.always}
    if "token_embd.weight" not in shapes:
        raise CheckpointError(f"{where} has no tensor token_embd.weight: it is a vocabulary or a part of a model, not a model")
    for key, name in table.keys.items():
        value = said.number(key) if key in OPTIONAL else said.needed(key)
        if value is not None:
            config[name] = value
    layers = {name.split(".")[1] for name in shapes if name.startswith("blk.")}
    if len(layers) != said.needed("block_count"):
        raise CheckpointError(
            f"{where} holds tensors of {len(layers)} layers, but its block_count is {said.needed('block_count')}; export again"
        )
    config["vocab_size"] = shapes["token_embd.weight"][0]
    config["tie_word_embeddings"] = "output.weight" not in shapes
    if table.biases:
        config["attention_bias"] = "blk.0.attn_q.bias" in shapes
    if arch == "llama":
        config["mlp_bias"] = "blk.0.ffn_up.bias" in shapes
    if table.rope:
        width = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
        config |= _rope(arch, said, width, factors)
    return config | _own(arch, config, said)


def metadata_of(arch: str, config: Config) -> Config:
    """The keys of the architecture that say a published config."""
    name, table = stored_name(arch), TABLES[arch]
    values = {key: config.get(word, config.get(ALSO.get(word, ""))) for key, word in table.keys.items()}
    if "attention.key_length" in table.keys:
        heads = config["num_attention_heads"]
        values["attention.key_length"] = width = values["attention.key_length"] or config["hidden_size"] // heads
        values["attention.value_length"] = width
        values["attention.head_count_kv"] = values["attention.head_count_kv"] or heads
        values |= _rope_keys(arch, config, width)
    if arch == "gpt2":
        values["feed_forward_length"] = values["feed_forward_length"] or 4 * config["n_embd"]
    if arch == "gemma3":
        values |= {"attention.sliding_window_pattern": _windows(config)}
    values["vocab_size"] = config["vocab_size"]
    return {f"{name}.{key}": value for key, value in values.items() if value is not None}


def says_all(config: Mapping[str, Any], again: Mapping[str, Any]) -> None:
    """Raise ``CheckpointError`` where what is read back from a file is not the model that was written into it."""
    if found := difference(dump(parts(config)), dump(parts(again))):
        place, was, would_be = found
        raise CheckpointError(
            f"GGUF cannot say this model: {place} is {was!r}, but whoever reads the file would take it for {would_be!r}; "
            "export it with --to hf"
        )


class _Said:
    """A file's values under the name of its architecture, each of the kind that is wanted."""

    def __init__(self, metadata: Mapping[str, Any], arch: str, where: object) -> None:
        self.metadata, self.arch, self.where = metadata, arch, where

    def number(self, key: str) -> float | None:
        """A number: whole, from 1 to ``LARGEST``, or where the key names a fraction, one with the short spelling of float32."""
        value = self._one(key)
        if value is None or (value == 0 and key in OPTIONAL):
            return None
        if key.endswith(FRACTIONS):
            if isinstance(value, int | float) and math.isfinite(value):
                return float(str(np.float32(value)))
        elif type(value) is int and 1 <= value <= LARGEST:
            return value
        raise CheckpointError(f"{self.where}: {self.arch}.{key} is {value!r}, which cannot be; export the file again")

    def needed(self, key: str) -> Any:
        """A number that the file must hold."""
        value = self.number(key)
        if value is None:
            raise CheckpointError(f"{self.where} lacks the key {self.arch}.{key}; export it again")
        return value

    def word(self, key: str, default: str) -> str:
        """A text."""
        return str(self._one(key) or default)

    def _one(self, key: str) -> Any:
        value = self.metadata.get(f"{self.arch}.{key}")
        if not isinstance(value, list):
            return value
        if any(one != value[0] for one in value) or not value:
            raise CheckpointError(f"{self.where}: {self.arch}.{key} differs from layer to layer, which is not supported")
        return value[0]


# rope


def _rope(arch: str, said: _Said, width: int, factors: Tensor | None) -> Config:
    rope: Config = {"rope_type": "default", "rope_theta": said.number("rope.freq_base") or 10000.0}
    kind = said.word("rope.scaling.type", "none")
    factor = said.number("rope.scaling.factor") or said.number("rope.scale_linear")
    if factors is not None:
        rope |= _llama3(said, rope["rope_theta"], factors)
    elif kind == "linear" or (kind == "none" and factor not in (None, 1.0)):
        rope |= {"rope_type": "linear", "factor": factor} if factor not in (None, 1.0) else {}
    elif kind == "yarn":
        original = said.needed("rope.scaling.original_context_length")
        rope |= {
            "rope_type": "yarn",
            "factor": said.needed("rope.scaling.factor"),
            "original_max_position_embeddings": original,
        }
        names = {"rope.scaling.yarn_beta_fast": "beta_fast", "rope.scaling.yarn_beta_slow": "beta_slow"}
        rope |= {name: said.number(key) for key, name in names.items() if said.number(key)}
    elif kind != "none":
        raise CheckpointError(f"{said.where} scales rope by {kind!r}; read are linear, yarn and the factors of LLaMA 3")
    turned = said.number("rope.dimension_count") or width
    if turned != width:
        rope["partial_rotary_factor"] = turned / width
    if arch == "gemma3":
        near = {"rope_type": "default", "rope_theta": said.number("rope.freq_base_swa") or 10000.0}
        return {"rope_parameters": {"full_attention": rope, "sliding_attention": near}}
    return {"rope_parameters": rope}


def _rope_keys(arch: str, config: Config, width: int) -> Config:
    rope = rope_parameters(config)
    near = rope.get("sliding_attention")
    rope = rope.get("full_attention", rope)
    kind = rope.get("rope_type", rope.get("type", "default"))
    share = rope.get("partial_rotary_factor", config.get("partial_rotary_factor", 0.5 if arch == "glm4" else 1.0))
    keys: Config = {"rope.freq_base": float(rope["rope_theta"]), "rope.dimension_count": int(width * share)}
    if arch == "gemma3":
        keys["rope.freq_base_swa"] = float(near["rope_theta"] if near else config.get("rope_local_base_freq", 10000.0))
    if kind in ("linear", "yarn"):
        keys |= {"rope.scaling.type": kind, "rope.scaling.factor": float(rope["factor"])}
    if kind in ("yarn", "llama3"):
        original = rope.get("original_max_position_embeddings") or config["max_position_embeddings"]
        keys["rope.scaling.original_context_length"] = original
    if kind == "yarn":
        names = {"beta_fast": "yarn_beta_fast", "beta_slow": "yarn_beta_slow"}
        keys |= {f"rope.scaling.{key}": float(rope[name]) for name, key in names.items() if rope.get(name)}
    return keys


def rope_parameters(config: Mapping[str, Any]) -> Config:
    """Rope in the style of transformers 5, from a config of either style."""
    new = config.get("rope_parameters")
    theta = config.get("rope_theta", 1e6 if str(config.get("model_type")).startswith("gemma3") else 10000.0)
    return dict(new) if new else {"rope_theta": theta, **(config.get("rope_scaling") or {})}


def rope_factors(config: Mapping[str, Any]) -> Tensor | None:
    """LLaMA 3's scaling as GGUF holds it: how much slower each frequency turns."""
    rope = rope_parameters(config)
    if rope.get("rope_type", rope.get("type")) != "llama3":
        return None
    width = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    original = rope.get("original_max_position_embeddings") or config["max_position_embeddings"]
    return _slower(rope["rope_theta"], width, rope["factor"], rope["low_freq_factor"], rope["high_freq_factor"], original)


def _slower(theta: float, width: int, factor: float, low: float, high: float, original: int) -> Tensor:
    plain = 1.0 / theta ** (torch.arange(0, width, 2, dtype=torch.float32) / width)
    turns = original * plain / (2 * math.pi)  # full turns within a row of the original length
    keep = ((turns - low) / (high - low)).clamp(0, 1)
    return 1 / (keep + (1 - keep) / factor)


def _llama3(said: _Said, theta: float, factors: Tensor) -> Config:
    """LLaMA 3's four numbers, of which the file holds the factors that they lead to: found, then checked."""
    if torch.all(factors == 1):
        return {}
    factor, low, high = float(factors.max()), 1.0, 4.0
    original = int(said.number("rope.scaling.original_context_length") or 8192)
    if not torch.allclose(factors, _slower(theta, 2 * len(factors), factor, low, high, original), rtol=1e-4):
        raise CheckpointError(
            f"{said.where}: rope_freqs holds factors that are not LLaMA 3's for {original} tokens; not supported"
        )
    names = {"factor": factor, "low_freq_factor": low, "high_freq_factor": high, "original_max_position_embeddings": original}
    return {"rope_type": "llama3", **names}


# what single architectures have


def _own(arch: str, config: Config, said: _Said) -> Config:
    if arch not in ("gemma2", "gemma3"):
        return {}
    width = config["hidden_size"] // config["num_attention_heads"]
    wide = config["num_hidden_layers"] == {"gemma2": 46, "gemma3": 62}[arch]  # llama.cpp knows the 27B models by their layers
    own = {"query_pre_attn_scalar": width if wide else config.get("head_dim") or width}
    if arch == "gemma2":
        return own | {key: config.get(key, value) for key, value in GEMMA2.items()}
    return own | _layer_types(config, said.metadata.get("gemma3.attention.sliding_window_pattern", 6))


def _layer_types(config: Config, pattern: int | list[bool]) -> Config:
    n = config["num_hidden_layers"]
    if "sliding_window" not in config:
        return {"layer_types": ["full_attention"] * n}
    near = pattern if isinstance(pattern, list) else [(i + 1) % pattern != 0 for i in range(n)]
    return {"layer_types": ["sliding_attention" if one else "full_attention" for one in near]}


def _windows(config: Config) -> list[bool] | None:
    kinds, every = config.get("layer_types"), config.get("sliding_window_pattern", 6)
    if kinds is None:
        return [(i + 1) % every != 0 for i in range(config["num_hidden_layers"])]
    return [kind == "sliding_attention" for kind in kinds]
