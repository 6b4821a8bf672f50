"""ERNIE 4.5: LLaMA whose channels are turned in neighbouring pairs, with biases everywhere or nowhere.

ERNIE Team, Baidu 2025, technical report.
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
    c = Reading(config, "ERNIE 4.5")
    c.only("use_rmsnorm", True)
    c.only("is_quantized", False)
    bias, norm = c("use_bias", False), c.rms_norm(1e-5)
    attention = c.attention(d_head=128, qkv_bias=bias, o_bias=bias)
    block = Block(attention=attention, mlp=c.gated(bias=bias), norm=norm)
    position = c.rope(attention.d_head, theta=5e5, context=131072, pairs="neighbours")
    return c.decoder([block] * c("num_hidden_layers"), norm=norm, position=position, context=131072, tied=True)
