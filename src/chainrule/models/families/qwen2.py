"""Qwen2 and Qwen2.5: LLaMA with biases of q, k and v, and windows in the upper layers where the config asks for them.

Yang et al. 2024, arXiv:2407.10671 and arXiv:2412.15115.
"""

from collections.abc import Mapping
from typing import Any

from chainrule.models.blocks import Block
from chainrule.models.decoder import DecoderConfig
from chainrule.models.families import llama
from chainrule.models.families.reading import Reading

moves = llama.moves


def to_parts(config: Mapping[str, Any]) -> DecoderConfig:
    """The decoder that a published config means; raises ``CheckpointError`` for what it does not implement."""
    c = Reading(config, "Qwen2")
    c.only("qkv_bias", True)
    c.only("attention_bias", True)
    norm, mlp = c.rms_norm(), c.gated()
    blocks = [Block(attention=c.attention(qkv_bias=True, window=window), mlp=mlp, norm=norm) for window in windows(c)]
    position = c.rope(blocks[0].attention.d_rotary, context=32768)
    return c.decoder(blocks, norm=norm, position=position, context=32768)


def windows(c: Reading) -> list[int | None]:
    """The window of every layer: none, or from ``max_window_layers`` on where ``use_sliding_window`` says so."""
    n, first, window = c("num_hidden_layers"), c("max_window_layers", 28), width(c)
    default = ["sliding_attention" if window is not None and i >= first else "full_attention" for i in range(n)]
    return c.layer_types(default, full_attention=None, sliding_attention=window)


def width(c: Reading) -> int | None:
    """How many tokens a window holds where ``use_sliding_window`` asks for windows; null is none, left out is 4096."""
    c.ignore("sliding_window")
    return c.config.get("sliding_window", 4096) if c("use_sliding_window", False) else None
