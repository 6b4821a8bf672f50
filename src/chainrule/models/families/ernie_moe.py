"""ERNIE 4.5 MoE: ERNIE whose upper mlps are mixtures, the choice of experts steered by a correction.

ERNIE Team, Baidu 2025, technical report.
"""

from collections.abc import Mapping
from typing import Any

from chainrule.layers.moe import MixtureOfExperts
from chainrule.layers.router import Router
from chainrule.models.blocks import Block
from chainrule.models.decoder import DecoderConfig
from chainrule.models.families import ernie
from chainrule.models.families.qwen3_moe import stacks
from chainrule.models.families.reading import Reading
from chainrule.models.moves import Drop, Flatten, Move, Replace


def to_parts(config: Mapping[str, Any]) -> DecoderConfig:
    """The decoder that a published config means; raises ``CheckpointError`` for what it does not implement."""
    c = Reading(config, "ERNIE 4.5 MoE")
    c.only("use_rmsnorm", True)
    c.only("is_quantized", False)
    c.only("moe_use_aux_free", True)
    c.only("norm_topk_prob", True)
    c.ignore("moe_capacity", "moe_gate", "num_nextn_predict_layers")
    bias, norm = c("use_bias", False), c.rms_norm(1e-5)
    attention = c.attention(qkv_bias=bias, o_bias=bias)
    dense = c.gated(bias=bias)
    mixture = MixtureOfExperts(
        n_experts=c("moe_num_experts", 64, "num_local_experts", "num_experts"),
        d_ff=c("moe_intermediate_size"),
        router=Router(k=c("moe_k", 6, "num_experts_per_tok"), correction=True, norm_min=c("moe_norm_min", 1e-12)),
        activation=c.activation(),
        d_shared=c("moe_intermediate_size") * c("moe_num_shared_experts", 0),
        shared_bias=bias,
    )
    n, every = c("num_hidden_layers"), c("moe_layer_interval", 1)
    first, last = c("moe_layer_start_index", 1), c("moe_layer_end_index", -1)
    sparse = [(i + 1) % every == 0 and first <= i <= (n - 1 if last == -1 else last) for i in range(n)]
    blocks = [Block(attention=attention, mlp=mixture if routed else dense, norm=norm) for routed in sparse]
    position = c.rope(attention.d_head, theta=5e5, context=131072, pairs="neighbours")
    tied = c("tie_word_embeddings", True)
    return c.decoder(blocks, norm=norm, position=position, context=131072, tied=True, head_bias=bias and not tied)


def moves(config: Mapping[str, Any]) -> tuple[Move, ...]:
    """LLaMA's names and stacks of experts; the correction is published as a row of its own."""
    return (
        Drop(r"^model\.mtp_"),
        *ernie.moves(config),
        Replace("mlp.moe_statics.e_score_correction_bias", "mlp.gate.e_score_correction_bias"),
        Flatten(r"mlp\.gate\.e_score_correction_bias$"),
        *stacks(),
    )
