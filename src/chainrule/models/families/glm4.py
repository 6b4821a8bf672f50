"""GLM-4: norms before and after, half of each head turned in neighbouring pairs, gate and up in one matrix.

GLM Team 2024, arXiv:2406.12793; the blocks are those of GLM-4-0414.
"""

from collections.abc import Mapping
from typing import Any

from chainrule.models.blocks import SandwichBlock
from chainrule.models.decoder import DecoderConfig
from chainrule.models.families import llama
from chainrule.models.families.reading import Reading
from chainrule.models.moves import Move, Replace, Split


def to_parts(config: Mapping[str, Any]) -> DecoderConfig:
    """The decoder that a published config means; raises ``CheckpointError`` for what it does not implement."""
    c = Reading(config, "GLM-4")
    attention = c.attention(d_head=128, qkv_bias=c("attention_bias", True))
    norm = c.rms_norm(1.5625e-07)
    block = SandwichBlock(attention=attention, mlp=c.gated(), norm=norm)
    position = c.rope(attention.d_head, context=131072, pairs="neighbours", share=0.5)
    return c.decoder([block] * c("num_hidden_layers"), norm=norm, position=position, context=131072)


def moves(config: Mapping[str, Any]) -> tuple[Move, ...]:
    """LLaMA's names, other names for the norms, gate and up apart."""
    return (
        *llama.moves(config),
        Replace(".post_attention_layernorm.", ".pre_feedforward_layernorm."),
        Replace(".post_self_attn_layernorm.", ".post_attention_layernorm."),
        Replace(".post_mlp_layernorm.", ".post_feedforward_layernorm."),
        gate_up(config["intermediate_size"]),
    )


def gate_up(width: int) -> Split:
    """Gate and up, which are published as one matrix."""
    return Split("mlp.gate_up_proj.weight", ("mlp.gate_proj.weight", "mlp.up_proj.weight"), (width, width))
