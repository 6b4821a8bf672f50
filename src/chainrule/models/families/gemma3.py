"""Gemma 3 (the text model): five layers with windows to one that sees all, each kind with a rope of its own; norms of q, k.

Gemma Team 2025, arXiv:2503.19786. Pictures are left out (``hub.pictures``).
"""

from collections.abc import Mapping
from typing import Any

from chainrule.layers.attention import QKNorm
from chainrule.layers.norm import OffsetRMSNorm
from chainrule.models.blocks import SandwichBlock
from chainrule.models.decoder import DecoderConfig
from chainrule.models.families import gemma2
from chainrule.models.families.reading import Reading

moves = gemma2.moves


def to_parts(config: Mapping[str, Any]) -> DecoderConfig:
    """The decoder that a published config means; raises ``CheckpointError`` for what it does not implement."""
    c = Reading(config, "Gemma 3")
    c.only("use_bidirectional_attention", None, False)
    c.only("use_qk_norm", True)
    n, every = c("num_hidden_layers"), c("sliding_window_pattern", 6, "_sliding_window_pattern")
    default = ["sliding_attention" if (i + 1) % every else "full_attention" for i in range(n)]
    windows = c.layer_types(default, full_attention=None, sliding_attention=c("sliding_window", 4096))
    norm = OffsetRMSNorm(eps=c("rms_norm_eps", 1e-6))
    bias = c("attention_bias", False)
    mlp = c.gated(activation=c.activation("hidden_activation", "gelu_pytorch_tanh", "hidden_act"))
    wide = c.attention(d_head=256).d_head
    full = c.rope(wide, theta=1e6, context=131072, of="full_attention")
    near = _near(c, wide)
    blocks = [
        SandwichBlock(
            attention=c.attention(
                d_head=256, window=window, soft_cap=c("attn_logit_softcapping", None), qkv_bias=bias, o_bias=bias,
                scale=c("query_pre_attn_scalar", 256) ** -0.5, qk_norm=QKNorm(norm=norm),
            ),
            mlp=mlp,
            norm=norm,
            position=None if window is None else near,
        )
        for window in windows
    ]  # fmt: skip
    return c.decoder(
        blocks,
        norm=norm,
        position=full,
        context=131072,
        tied=True,
        embedding_scale=c("hidden_size") ** 0.5,
        logit_cap=c("final_logit_softcapping", None),
    )


def _near(c: Reading, d_head: int) -> Any:
    """The rope of layers with windows: a base of its own, and no scaling in the older style of config."""
    if "sliding_attention" in c("rope_parameters", {}):
        return c.rope(d_head, of="sliding_attention")
    return Reading({"rope_theta": c("rope_local_base_freq", 10000.0)}, "Gemma 3").rope(d_head)
