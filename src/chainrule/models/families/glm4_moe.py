"""GLM-4.5: grouped-query attention of which half is turned, DeepSeek-V3's router over many experts.

GLM-4.5 Team 2025, arXiv:2508.06471. The layers that predict further tokens are left out.
"""

from collections.abc import Mapping
from typing import Any

from chainrule.layers.attention import QKNorm
from chainrule.layers.moe import MixtureOfExperts
from chainrule.layers.router import Router
from chainrule.models.blocks import Block
from chainrule.models.decoder import DecoderConfig
from chainrule.models.families import deepseek
from chainrule.models.families.reading import Reading

moves = deepseek.moves


def to_parts(config: Mapping[str, Any]) -> DecoderConfig:
    """The decoder that a published config means; raises ``CheckpointError`` for what it does not implement."""
    c = Reading(config, "GLM-4.5")
    c.ignore("num_nextn_predict_layers")
    norm, dense = c.rms_norm(1e-5), c.gated()
    qk_norm = QKNorm(norm=norm) if c("use_qk_norm", False) else None
    attention = c.attention(qkv_bias=c("attention_bias", False), qk_norm=qk_norm)
    mixture = MixtureOfExperts(
        n_experts=c("n_routed_experts", 128, "num_local_experts", "num_experts"),
        d_ff=c("moe_intermediate_size"),
        router=Router(
            k=c("num_experts_per_tok", 8),
            score="sigmoid",
            normalize=c("norm_topk_prob", True),
            scale=c("routed_scaling_factor", 1.0),
            correction=True,
            groups=c("n_group", 1),
            kept=c("topk_group", 1),
        ),
        activation=c.activation(),
        d_shared=c("moe_intermediate_size") * c("n_shared_experts", 1),
    )
    n, first = c("num_hidden_layers"), c("first_k_dense_replace", 1)
    blocks = [Block(attention=attention, mlp=mixture if i >= first else dense, norm=norm) for i in range(n)]
    position = c.rope(attention.d_head, context=131072, share=0.5)
    return c.decoder(blocks, norm=norm, position=position, context=131072)
