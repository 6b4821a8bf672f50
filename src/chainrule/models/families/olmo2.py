"""OLMo 2: norms of what attention and mlp say, none before them; queries and keys normed as whole rows.

OLMo Team 2025, arXiv:2501.00656.
"""

from collections.abc import Mapping
from typing import Any

from chainrule.layers.attention import QKNorm
from chainrule.models.blocks import OutputNormBlock
from chainrule.models.decoder import DecoderConfig
from chainrule.models.families import llama
from chainrule.models.families.reading import Reading

moves = llama.moves


def to_parts(config: Mapping[str, Any]) -> DecoderConfig:
    """The decoder that a published config means; raises ``CheckpointError`` for what it does not implement."""
    c = Reading(config, "OLMo 2")
    c.only("clip_qkv", None)
    c.only("use_qk_norm", True)
    norm, bias = c.rms_norm(1e-5), c("attention_bias", False)
    attention = c.attention(qkv_bias=bias, o_bias=bias, qk_norm=QKNorm(norm=norm, over="row"))
    block = OutputNormBlock(attention=attention, mlp=c.gated(), norm=norm)
    return c.decoder([block] * c("num_hidden_layers"), norm=norm, position=c.rope(attention.d_head))
