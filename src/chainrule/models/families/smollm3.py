"""SmolLM3: LLaMA in which every fourth layer knows no positions.

Bakouch et al. 2025, model card of SmolLM3; Yang et al. 2025, arXiv:2501.18795.
"""

from collections.abc import Mapping
from typing import Any

from chainrule.layers.position import NoPosition
from chainrule.models.blocks import Block
from chainrule.models.decoder import DecoderConfig
from chainrule.models.families import llama
from chainrule.models.families.reading import Reading

moves = llama.moves


def to_parts(config: Mapping[str, Any]) -> DecoderConfig:
    """The decoder that a published config means; raises ``CheckpointError`` for what it does not implement."""
    c = Reading(config, "SmolLM3")
    c.ignore("max_window_layers", "sliding_window")
    n, every = c("num_hidden_layers"), c("no_rope_layer_interval", 4)
    turned = c("no_rope_layers", [int((i + 1) % every != 0) for i in range(n)])
    window = c("sliding_window", None) if c("use_sliding_window", False) else None
    default = ["full_attention" if rope or window is None else "sliding_attention" for rope in turned]
    windows = c.layer_types(default, full_attention=None, sliding_attention=window)
    bias, norm = c("attention_bias", False), c.rms_norm()
    mlp = c.gated(bias=c("mlp_bias", False))
    blocks = [
        Block(
            attention=c.attention(qkv_bias=bias, o_bias=bias, window=window),
            mlp=mlp,
            norm=norm,
            position=None if rope else NoPosition(),
        )
        for rope, window in zip(turned, windows, strict=True)
    ]
    position = c.rope(blocks[0].attention.d_rotary, theta=2e6, context=32768)
    return c.decoder(blocks, norm=norm, position=position, context=32768, tied=True)
