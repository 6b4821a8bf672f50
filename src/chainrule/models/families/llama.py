"""LLaMA 1, 2, 3.x: RMSNorm, rope with its scalings, grouped-query attention, a SiLU-gated mlp.

Touvron et al. 2023, arXiv:2302.13971 and 2307.09288; Grattafiori et al. 2024, arXiv:2407.21783. Configs are read in the
style of transformers 4 (``rope_theta`` beside ``rope_scaling``) and 5 (``rope_parameters``), and written in that of 5.
"""

from collections.abc import Mapping
from typing import Any

from chainrule.core.errors import CheckpointError
from chainrule.layers.attention import GroupedQuery
from chainrule.layers.mlp import Gated
from chainrule.layers.norm import RMSNorm
from chainrule.layers.rope import Rope
from chainrule.layers.scaling import Dynamic, Linear, Llama3
from chainrule.models.blocks import Block
from chainrule.models.decoder import DecoderConfig
from chainrule.models.families.reading import ACTIVATIONS, Reading
from chainrule.models.moves import Move, RenamePrefix


def to_parts(config: Mapping[str, Any]) -> DecoderConfig:
    """The decoder that a published config means; raises ``CheckpointError`` for what it does not implement."""
    c = Reading(config, "LLaMA")
    bias = c("attention_bias", False)
    attention = c.attention(qkv_bias=bias, o_bias=bias)
    norm = c.rms_norm()
    block = Block(attention=attention, mlp=c.gated(bias=c("mlp_bias", False)), norm=norm)
    return c.decoder([block] * c("num_hidden_layers"), norm=norm, position=c.rope(attention.d_head))


def moves(config: Mapping[str, Any]) -> tuple[Move, ...]:
    """Where each weight lives: published names begin with ``model.``, all but the head's."""
    return (RenamePrefix("model.", "", but=("lm_head.",)),)


def to_published(config: DecoderConfig) -> dict[str, Any]:
    """The published config of a decoder of LLaMA's shape; raises ``CheckpointError`` where it has another."""
    block = config.blocks[0]
    attention, mlp = block.attention, block.mlp
    same = all(other == block for other in config.blocks) and block.norm == config.norm and block.position is None
    plain = isinstance(block, Block) and isinstance(mlp, Gated) and mlp.activation in ACTIVATIONS.values()
    if not (same and plain and isinstance(attention, GroupedQuery)):
        raise CheckpointError("this decoder is not of LLaMA's shape: equal blocks of plain attention and gated mlp")
    if not (isinstance(block.norm, RMSNorm) and isinstance(config.position, Rope)):
        raise CheckpointError("this decoder is not of LLaMA's shape: RMSNorm and rope")
    _only_plain(config, attention, config.position)
    if attention.qkv_bias != attention.o_bias:
        raise CheckpointError("LLaMA's attention has a bias everywhere or nowhere; here q, k, v and o differ")
    names = {ours: theirs for theirs, ours in reversed(ACTIVATIONS.items())}
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": config.vocab_size,
        "hidden_size": config.d_model,
        "intermediate_size": mlp.d_ff,
        "num_hidden_layers": len(config.blocks),
        "num_attention_heads": attention.n_heads,
        "num_key_value_heads": attention.n_kv_heads,
        "head_dim": attention.d_head,
        "hidden_act": names[mlp.activation],
        "max_position_embeddings": config.context,
        "rms_norm_eps": block.norm.eps,
        "tie_word_embeddings": config.tied,
        "attention_bias": attention.qkv_bias,
        "mlp_bias": mlp.bias,
        "rope_parameters": _rope_parameters(config.position),
    }


def _only_plain(config: DecoderConfig, attention: GroupedQuery, rope: Rope) -> None:
    """Refuse a decoder with anything that LLaMA's config cannot say."""
    bare = GroupedQuery(
        n_heads=attention.n_heads, n_kv_heads=attention.n_kv_heads, d_head=attention.d_head,
        qkv_bias=attention.qkv_bias, o_bias=attention.o_bias,
    )  # fmt: skip
    more = (config.head_bias, config.embedding_scale != 1, config.logit_scale != 1, config.logit_cap is not None)
    if attention != bare or any(more) or rope.d_rotary is not None or rope.pairs != "halves":
        raise CheckpointError("this decoder has more than LLaMA's config can say: windows, norms of q and k, caps, scales")
    if not isinstance(rope.scaling, Linear | Dynamic | Llama3 | None):
        raise CheckpointError(f"LLaMA's config has no rope scaling of kind {rope.scaling.kind!r}")
    if isinstance(rope.scaling, Dynamic) and rope.scaling.original != config.context:
        raise CheckpointError(
            f"LLaMA's config says a dynamic rope whose trained rows are as long as its context ({config.context}); "
            f"here they are {rope.scaling.original}"
        )


def _rope_parameters(rope: Rope) -> dict[str, Any]:
    parameters: dict[str, Any] = {"rope_theta": rope.theta, "rope_type": "default"}
    scaling = rope.scaling
    if isinstance(scaling, Linear | Dynamic | Llama3):
        parameters |= {"rope_type": scaling.kind, "factor": scaling.factor}
    if isinstance(scaling, Dynamic | Llama3):
        parameters["original_max_position_embeddings"] = scaling.original
    if isinstance(scaling, Llama3):
        parameters |= {"low_freq_factor": scaling.low, "high_freq_factor": scaling.high}
    return parameters
