"""Qwen3: Qwen2 without biases, with norms of q and k in every head.

Yang et al. 2025, arXiv:2505.09388.
"""

from collections.abc import Mapping
from typing import Any

from chainrule.layers.attention import GroupedQuery, QKNorm
from chainrule.models.blocks import Block
from chainrule.models.decoder import DecoderConfig
from chainrule.models.families import llama
from chainrule.models.families.qwen2 import windows
from chainrule.models.families.reading import Reading

moves = llama.moves


def to_parts(config: Mapping[str, Any]) -> DecoderConfig:
    """The decoder that a published config means; raises ``CheckpointError`` for what it does not implement."""
    c = Reading(config, "Qwen3")
    norm, mlp = c.rms_norm(), c.gated()
    blocks = [Block(attention=attention(c, window, 128), mlp=mlp, norm=norm) for window in windows(c)]
    return c.decoder(blocks, norm=norm, position=c.rope(blocks[0].attention.d_rotary, context=32768), context=32768)


def attention(c: Reading, window: int | None, d_head: int | None) -> GroupedQuery:
    """Attention whose queries and keys are normed."""
    c.only("use_qk_norm", True)
    bias = c("attention_bias", False)
    return c.attention(d_head=d_head, qkv_bias=bias, o_bias=bias, window=window, qk_norm=QKNorm(norm=c.rms_norm()))
