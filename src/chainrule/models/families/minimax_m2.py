"""MiniMax-M2: queries and keys normed as whole rows, half of each head turned, a sigmoid router steered by a correction.

MiniMax 2025, model card of MiniMax-M2. The modules that predict further tokens are left out.
"""

from collections.abc import Mapping
from typing import Any

from chainrule.layers.attention import QKNorm
from chainrule.layers.moe import MixtureOfExperts
from chainrule.layers.router import Router
from chainrule.models.blocks import Block
from chainrule.models.decoder import DecoderConfig
from chainrule.models.families import mixtral
from chainrule.models.families.reading import Reading
from chainrule.models.moves import Drop, Move, Replace


def to_parts(config: Mapping[str, Any]) -> DecoderConfig:
    """The decoder that a published config means; raises ``CheckpointError`` for what it does not implement."""
    c = Reading(config, "MiniMax-M2")
    for key, value in (("scoring_func", "sigmoid"), ("use_qk_norm", True), ("qk_norm_type", "per_layer"),
                       ("use_routing_bias", True), ("shared_intermediate_size", 0), ("norm_topk_prob", True)):  # fmt: skip
        c.only(key, value)
    for part in ("full_attention", "linear_attention", "mlp"):
        c.only(f"layernorm_{part}_beta", 1.0)
    c.ignore("use_mtp", "num_mtp_modules", "mtp_transformer_layers", "mlp_intermediate_size", "shared_moe_mode")
    if any(kind != 1 for kind in c("attn_type_list", [])):
        c.only("attn_type_list", [], why="every layer attends with a softmax")
    norm, n = c.rms_norm(), c("num_hidden_layers")
    attention = c.attention(d_head=128, qk_norm=QKNorm(norm=norm, over="row"))
    mlp = MixtureOfExperts(
        n_experts=c("num_local_experts", 256, "num_experts"),
        d_ff=c("intermediate_size"),
        router=Router(k=c("num_experts_per_tok", 8), score="sigmoid", correction=True),
        activation=c.activation(),
    )
    share = c("rotary_dim", attention.d_head) / attention.d_head
    position = c.rope(attention.d_head, theta=5e6, context=196608, share=share)
    return c.decoder([Block(attention=attention, mlp=mlp, norm=norm)] * n, norm=norm, position=position, context=196608)


def moves(config: Mapping[str, Any]) -> tuple[Move, ...]:
    """Mixtral's names, and the router's correction beside the router."""
    correction = "mlp.e_score_correction_bias", "mlp.gate.e_score_correction_bias"
    return (Drop(r"^model\.mtp"), *mixtral.moves(config), Replace(*correction))
