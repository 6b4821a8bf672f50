"""Gemma 2: norms before and after, windows in every other layer, soft caps on scores and logits, scaled embeddings.

Gemma Team 2024, arXiv:2408.00118.
"""

from collections.abc import Mapping
from typing import Any

from chainrule.layers.norm import OffsetRMSNorm
from chainrule.models.blocks import SandwichBlock
from chainrule.models.decoder import DecoderConfig
from chainrule.models.families import llama
from chainrule.models.families.reading import Reading

moves = llama.moves


def to_parts(config: Mapping[str, Any]) -> DecoderConfig:
    """The decoder that a published config means; raises ``CheckpointError`` for what it does not implement."""
    c = Reading(config, "Gemma 2")
    c.only("use_bidirectional_attention", None, False)
    n = c("num_hidden_layers")
    default = ["full_attention" if i % 2 else "sliding_attention" for i in range(n)]
    window = c("sliding_window", 4096)
    c.only("sliding_window_size", window)
    windows = c.layer_types(default, full_attention=None, sliding_attention=window)
    norm = OffsetRMSNorm(eps=c("rms_norm_eps", 1e-6))
    bias = c("attention_bias", False)
    mlp = c.gated(activation=c.activation("hidden_activation", "gelu_pytorch_tanh", "hidden_act"))
    blocks = [
        SandwichBlock(
            attention=c.attention(
                d_head=256, window=window, soft_cap=c.stated("attn_logit_softcapping"), qkv_bias=bias, o_bias=bias,
                scale=c("query_pre_attn_scalar", 256) ** -0.5,
            ),
            mlp=mlp,
            norm=norm,
        )
        for window in windows
    ]  # fmt: skip
    return c.decoder(
        blocks,
        norm=norm,
        position=c.rope(blocks[0].attention.d_rotary, context=8192),
        context=8192,
        tied=True,
        embedding_scale=c("hidden_size") ** 0.5,
        logit_cap=c.stated("final_logit_softcapping"),
    )
